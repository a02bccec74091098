"""Writes the pipeline cases beside this script: tiny Stable Diffusion folders and what diffusers computes with them.

Made with torch 2.9.0, diffusers 0.42.1, transformers 5.24.0, safetensors 0.8.0 on a CPU: `python pipeline.py`.
"""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

HERE = Path(__file__).parent
PROMPTS = ["a photo of a cat", "two dogs, painted"]
NEGATIVE_PROMPTS = ["", "blurry"]
MERGES = ["a t</w>", "c at</w>", "o f</w>", "d o", "do g", "p h", "ph o"]
torch.set_num_threads(1)


def byte_symbols():
    """The printable stand-ins of the 256 bytes in the order of GPT-2's vocabulary."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(len(others))]


def write_tokenizer(folder, pad_token):
    symbols = byte_symbols()
    tokens = symbols + [s + "</w>" for s in symbols] + [m.replace(" ", "") for m in MERGES]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {token: index for index, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES]) + "\n", encoding="utf-8")
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": 77,
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": pad_token,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
    merges = [tuple(m.split()) for m in MERGES]
    return CLIPTokenizer(vocab=vocabulary, merges=merges, pad_token=pad_token, model_max_length=77)


def randomize(model, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def case(name, seed, pad_token, hidden_act, scheduler, linear, guidance_scale, prefix):
    folder = HERE / name
    torch.manual_seed(seed)
    tokenizer = write_tokenizer(folder / "tokenizer", pad_token)
    size = len(tokenizer)
    text_config = CLIPTextConfig(
        vocab_size=size,
        hidden_size=8,
        intermediate_size=16,
        projection_dim=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        hidden_act=hidden_act,
        bos_token_id=size - 2,
        eos_token_id=size - 1,
        pad_token_id=tokenizer.pad_token_id,
    )
    text_encoder = randomize(CLIPTextModel(text_config), seed + 1)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(4, 8),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=8,
        attention_head_dim=(1, 2) if linear else 2,
        use_linear_projection=linear,
    )
    vae = AutoencoderKL(
        sample_size=16,
        block_out_channels=(4, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        norm_num_groups=4,
    )
    pipe = StableDiffusionPipeline(
        vae=randomize(vae, seed + 2),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=randomize(unet, seed + 3),
        scheduler=DDIMScheduler(**scheduler),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    for part in ("unet", "vae", "text_encoder", "scheduler"):
        getattr(pipe, part).save_pretrained(folder / part)
    pipe.save_config(folder)
    if prefix:
        weights = folder / "text_encoder" / "model.safetensors"
        tensors = {prefix + key: value for key, value in load_file(weights).items()}
        save_file(tensors, weights, metadata={"format": "pt"})

    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(seed + 4))
    embeds, negative = pipe.encode_prompt(PROMPTS, "cpu", 1, True, NEGATIVE_PROMPTS)
    run = dict(prompt=PROMPTS, num_inference_steps=4, guidance_scale=guidance_scale, latents=noise)
    if guidance_scale > 1:
        run["negative_prompt"] = NEGATIVE_PROMPTS
    latents = pipe(output_type="latent", **run).images
    images = pipe(output_type="pt", **run).images
    arrays = pipe(output_type="np", **run).images
    save_file(
        {
            "prompt_embeds": embeds.contiguous(),
            "negative_embeds": negative.contiguous(),
            "noise": noise,
            "latents": latents.contiguous(),
            "images": images.contiguous(),
            "rgb": torch.from_numpy((arrays * 255).round().astype("uint8")).contiguous(),
        },
        folder / "golden.safetensors",
    )


STABLE_DIFFUSION = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}

with torch.no_grad():
    # As Stable Diffusion 1.5: padding by the end token, quick GELU, convolutions, epsilon; the text encoder's names have
    # the prefix of all files published before transformers 5.
    case(
        "pipeline_sd1",
        seed=40,
        pad_token="<|endoftext|>",
        hidden_act="quick_gelu",
        scheduler=STABLE_DIFFUSION,
        linear=False,
        guidance_scale=7.5,
        prefix="text_model.",
    )
    # As Stable Diffusion 2.1: padding by `!`, GELU, linear projections, v-prediction; here without guidance and with the
    # text encoder's names as transformers 5 writes them.
    case(
        "pipeline_sd2",
        seed=50,
        pad_token="!",
        hidden_act="gelu",
        scheduler=STABLE_DIFFUSION | {"prediction_type": "v_prediction"},
        linear=True,
        guidance_scale=1.0,
        prefix="",
    )
