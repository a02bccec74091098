"""Writes the models of pipeline_sd1 and pipeline_sd2 as the single files in which Stable Diffusion was first published.

`single_file/v1.ckpt` is a torch file as PyTorch Lightning left it, with a log beside the weights; `single_file/v2.safetensors`
has the text tower of open_clip with the layer that is not used. Both are in f16. diffusers' own converters give back the
tensors of the pipelines, or the script stops.

torch 2.9.0, diffusers 0.42.1, transformers 5.24.0, numpy 2.x, safetensors 0.8.0. Run in this folder: python single_file.py
"""

import json
import sys
import types
from pathlib import Path

import numpy
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint, convert_open_clip_checkpoint,
)
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

HERE = Path(__file__).parent


def unet_names(state, config):
    """Names in the single file for diffusers' names: blocks are numbered in the order of computation."""
    resnet = {
        "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1",
        "norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
    }
    names = {
        "conv_in": "input_blocks.0.0", "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
        "conv_norm_out": "out.0", "conv_out": "out.2", "mid_block.resnets.0": "middle_block.0",
        "mid_block.attentions.0": "middle_block.1", "mid_block.resnets.1": "middle_block.2",
    }
    number = 1
    for block in range(len(config.block_out_channels)):
        for layer in range(config.layers_per_block):
            names[f"down_blocks.{block}.resnets.{layer}"] = f"input_blocks.{number}.0"
            names[f"down_blocks.{block}.attentions.{layer}"] = f"input_blocks.{number}.1"
            number += 1
        names[f"down_blocks.{block}.downsamplers.0.conv"] = f"input_blocks.{number}.0.op"
        number += 1
    number = 0
    for block in range(len(config.block_out_channels)):
        for layer in range(config.layers_per_block + 1):
            names[f"up_blocks.{block}.resnets.{layer}"] = f"output_blocks.{number}.0"
            names[f"up_blocks.{block}.attentions.{layer}"] = f"output_blocks.{number}.1"
            number += 1
        attends = any(key.startswith(f"up_blocks.{block}.attentions.") for key in state)
        names[f"up_blocks.{block}.upsamplers.0.conv"] = f"output_blocks.{number - 1}.{2 if attends else 1}.conv"
    result = []
    for key in state:
        prefix = next(prefix for prefix in names if key.startswith(prefix + "."))
        rest = key[len(prefix) + 1 :]
        if ".resnets." in key:
            layer, leaf = rest.split(".")
            rest = f"{resnet[layer]}.{leaf}"
        result.append(f"{names[prefix]}.{rest}")
    return result


def vae_names(state, config):
    attention = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
    last = len(config.block_out_channels) - 1
    result = []
    for key in state:
        for block in range(last + 1):
            if key.startswith(f"decoder.up_blocks.{block}."):
                key = f"decoder.up.{last - block}." + key.split(".", 3)[3]
                break
        for resnet in range(2):
            key = key.replace(f"mid_block.resnets.{resnet}", f"mid.block_{resnet + 1}")
        for ours, theirs in attention.items():
            key = key.replace(f"mid_block.attentions.0.{ours}.", f"mid.attn_1.{theirs}.")
        for ours, theirs in [
            ("down_blocks", "down"), ("resnets", "block"), ("downsamplers.0", "downsample"),
            ("upsamplers.0", "upsample"), ("conv_shortcut", "nin_shortcut"), ("conv_norm_out", "norm_out"),
        ]:
            key = key.replace(ours, theirs)
        result.append(key)
    return result


def open_clip_tower(state, num_layers):
    """The tower of transformers' names as open_clip's, with one more layer."""
    state = {key.removeprefix("text_model."): value for key, value in state.items()}
    tower = {
        "token_embedding.weight": state["embeddings.token_embedding.weight"],
        "positional_embedding": state["embeddings.position_embedding.weight"],
        "ln_final.weight": state["final_layer_norm.weight"],
        "ln_final.bias": state["final_layer_norm.bias"],
    }
    names = {
        "layer_norm1": "ln_1", "layer_norm2": "ln_2", "self_attn.out_proj": "attn.out_proj",
        "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
    }
    for layer in range(num_layers):
        ours, theirs = f"encoder.layers.{layer}", f"transformer.resblocks.{layer}"
        for leaf in ("weight", "bias"):
            for name, other in names.items():
                tower[f"{theirs}.{other}.{leaf}"] = state[f"{ours}.{name}.{leaf}"]
            parts = [state[f"{ours}.self_attn.{name}_proj.{leaf}"] for name in "qkv"]
            tower[f"{theirs}.attn.in_proj_{leaf}"] = torch.cat(parts)
    for key in [key for key in tower if f"resblocks.{num_layers - 1}." in key]:
        tower[key.replace(f".{num_layers - 1}.", f".{num_layers}.", 1)] = torch.full_like(tower[key], 7.0)
    width = tower["ln_final.bias"].numel()
    tower["text_projection"] = torch.eye(width).half()
    tower["logit_scale"] = torch.tensor(4.6).half()
    return tower


def equal(found, expected):
    found = {key.removeprefix("text_model."): value for key, value in found.items()}
    expected = {key.removeprefix("text_model."): value for key, value in expected.items()}
    for key, value in expected.items():
        assert torch.equal(found[key], value), key


def single_file(name, is_open_clip):
    folder = HERE / name
    weights = lambda part, file: {key: value.half() for key, value in load_file(folder / part / file).items()}
    unet, vae = (weights(part, "diffusion_pytorch_model.safetensors") for part in ("unet", "vae"))
    text = weights("text_encoder", "model.safetensors")
    unet_config = types.SimpleNamespace(**json.loads((folder / "unet/config.json").read_text()))
    vae_config = types.SimpleNamespace(**json.loads((folder / "vae/config.json").read_text()))
    state = {}
    for (key, value), other in zip(unet.items(), unet_names(unet, unet_config)):
        state["model.diffusion_model." + other] = value
    for (key, value), other in zip(vae.items(), vae_names(vae, vae_config)):
        is_convolution = ".mid_block.attentions." in key and value.ndim == 2
        state["first_stage_model." + other] = value[:, :, None, None] if is_convolution else value
    text_config = CLIPTextConfig(**json.loads((folder / "text_encoder/config.json").read_text()))
    if is_open_clip:
        tower = open_clip_tower(text, text_config.num_hidden_layers)
        state |= {"cond_stage_model.model." + key: value for key, value in tower.items()}
        prefix = "cond_stage_model.model."
        converted = convert_open_clip_checkpoint(CLIPTextModel(text_config), dict(state), prefix)
        equal(converted, text)
    else:
        state |= {"cond_stage_model.transformer." + key: value for key, value in text.items()}
        ids = torch.arange(text_config.max_position_embeddings)[None]
        state["cond_stage_model.transformer.text_model.embeddings.position_ids"] = ids
    equal(convert_ldm_unet_checkpoint(dict(state), vars(unet_config)), unet)
    equal(convert_ldm_vae_checkpoint(dict(state), vars(vae_config)), vae)
    # The buffers of training.
    state["betas"] = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    state["model_ema.decay"] = torch.tensor(0.9999)
    state["model_ema.num_updates"] = torch.tensor(3, dtype=torch.int32)
    state["model_ema.diffusion_modelout0bias"] = state["model.diffusion_model.out.0.bias"] + 1
    return {key: value.contiguous() for key, value in state.items()}


def lightning_log():
    """A class as a key and a numpy number, in modules of PyTorch Lightning's name."""
    name = "pytorch_lightning.callbacks.model_checkpoint"
    for part in ("pytorch_lightning", "pytorch_lightning.callbacks", name):
        sys.modules.setdefault(part, types.ModuleType(part))
    callback = type("ModelCheckpoint", (), {"__module__": name})
    sys.modules[name].ModelCheckpoint = callback
    return {callback: {"monitor": "val/loss_simple_ema", "best_model_score": numpy.float64(0.125), "best_model_path": ""}}


def main():
    (HERE / "single_file").mkdir(exist_ok=True)
    state = single_file("pipeline_sd1", is_open_clip=False)
    checkpoint = {
        "epoch": 0, "global_step": 3, "pytorch-lightning_version": "1.4.2", "state_dict": state,
        "callbacks": lightning_log(), "lr_schedulers": [{"base_lrs": [0.0001], "last_epoch": 3}],
    }
    torch.save(checkpoint, HERE / "single_file/v1.ckpt")
    save_file(single_file("pipeline_sd2", is_open_clip=True), HERE / "single_file/v2.safetensors")


if __name__ == "__main__":
    main()
