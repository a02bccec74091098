"""Writes keys/*.tsv: names and shapes of Stable Diffusion's published files in both layouts; nothing is downloaded.

Columns: layer in diffusers' (transformers') file, layer in the single file, shape of `weight`, `bias` or `-`. The single
file's prefixes (`model.diffusion_model.`, ...) are left out. `sd2_text.tsv` has one line per tensor of the single file: its
name, its shape, and the names in transformers' file in the order in which the tensor holds them (none for tensors that the
text encoder does not read).

Networks are built on the meta device from the published configurations. The names of the single file are those of
single_file.py; diffusers' own converters map marked tensors of these names, and the script stops unless they give every
tensor of the network, each once. open_clip gives the names of its text tower.

torch 2.9.0, diffusers 0.42.1, transformers 5.24.0, open_clip 3.3.0. Run in this folder: python keys.py
"""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint, convert_open_clip_checkpoint,
)
from open_clip.model import CLIP
from transformers import CLIPTextConfig, CLIPTextModel

from single_file import unet_names, vae_names

HERE = Path(__file__).parent / "keys"
DOWN = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
UP = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
SD1 = dict(sample_size=64, cross_attention_dim=768, attention_head_dim=8, down_block_types=DOWN, up_block_types=UP)
SD2 = SD1 | dict(cross_attention_dim=1024, attention_head_dim=[5, 10, 20, 20], use_linear_projection=True)
VAE = dict(
    sample_size=512, block_out_channels=[128, 256, 512, 512], layers_per_block=2, latent_channels=4,
    down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
)


def write_layers(name, state, to_single):
    """`to_single` is a dict from diffusers' to the single file's names."""
    assert to_single.keys() == state.keys() and len(set(to_single.values())) == len(state), name
    lines = []
    for key, tensor in sorted(state.items()):
        layer, leaf = key.rsplit(".", 1)
        if leaf == "bias":
            assert state[layer + ".weight"].shape[0] == tensor.shape[0]
            continue
        assert leaf == "weight" and to_single[key].endswith(".weight")
        bias = "bias" if layer + ".bias" in state else "-"
        assert bias == "-" or to_single[layer + ".bias"] == to_single[key].removesuffix("weight") + "bias"
        shape = ",".join(map(str, tensor.shape))
        lines.append(f"{layer}\t{to_single[key].removesuffix('.weight')}\t{shape}\t{bias}\n")
    (HERE / f"{name}.tsv").write_text("".join(lines))


def marked(names, prefix):
    """One number per name; four axes, so that the converters treat it as a convolution."""
    return {prefix + name: torch.full((1, 1, 1, 1), float(number)) for number, name in enumerate(names)}


def traced(converted, names):
    return {key: names[int(tensor.flatten()[0])] for key, tensor in converted.items()}


def write_unet(name, config):
    with torch.device("meta"):
        model = UNet2DConditionModel(**config)
    names = unet_names(model.state_dict(), model.config)
    converted = convert_ldm_unet_checkpoint(marked(names, "model.diffusion_model."), model.config)
    write_layers(name, model.state_dict(), traced(converted, names))


def write_vae(name):
    with torch.device("meta"):
        model = AutoencoderKL(**VAE)
    names = vae_names(model.state_dict(), model.config)
    converted = convert_ldm_vae_checkpoint(marked(names, "first_stage_model."), model.config)
    write_layers(name, model.state_dict(), traced(converted, names))


def write_sd1_text(name):
    config = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_attention_heads=12, projection_dim=768)
    with torch.device("meta"):
        state = CLIPTextModel(config).state_dict()
    state = {"text_model." + key.removeprefix("text_model."): tensor for key, tensor in state.items()}
    write_layers(name, state, {key: "transformer." + key for key in state})


def write_sd2_text(name):
    """open_clip's ViT-H/14 without its image tower, whose last layer Stable Diffusion 2 leaves out."""
    def text_tower(width, heads):
        vision = dict(image_size=14, patch_size=14, width=8, layers=1, head_width=8)
        clip = CLIP(embed_dim=width, vision_cfg=vision, text_cfg=dict(width=width, heads=heads, layers=24))
        return {key: value for key, value in clip.state_dict().items() if not key.startswith("visual.")}

    with torch.device("meta"):
        shapes = text_tower(1024, 16)
    torch.manual_seed(0)
    small = {key: torch.randn_like(value) for key, value in text_tower(8, 2).items()}
    config = CLIPTextConfig(hidden_size=8, intermediate_size=32, num_attention_heads=2, num_hidden_layers=23, hidden_act="gelu")
    model = CLIPTextModel(config)
    prefix = "cond_stage_model.model."
    converted = convert_open_clip_checkpoint(model, {prefix + key: value for key, value in small.items()}, prefix)
    expected = {"text_model." + key.removeprefix("text_model.") for key in model.state_dict()}
    converted = {"text_model." + key.removeprefix("text_model."): value for key, value in converted.items()}
    converted = {key: value for key, value in converted.items() if key in expected}
    assert converted.keys() == expected, expected ^ converted.keys()
    lines = []
    for key, shape in sorted(shapes.items()):
        value, found = small[key], {}
        for ours, part in converted.items():
            if part.shape == value.shape and torch.equal(part, value):
                found[0] = ours
            elif "in_proj" in key and part.ndim == value.ndim:
                for index, third in enumerate(value.chunk(3)):
                    if part.shape == third.shape and torch.equal(part, third):
                        found[index] = ours
        assert len(found) in (0, 1, 3), key
        shape = ",".join(map(str, shape.shape))
        lines.append(f"{key}\t{shape}\t{','.join(found[index] for index in sorted(found))}\n")
    (HERE / f"{name}.tsv").write_text("".join(lines))


write_unet("sd1_unet", SD1)
write_unet("sd2_unet", SD2)
write_vae("vae")
write_sd1_text("sd1_text")
write_sd2_text("sd2_text")
