"""One pass through a network of Stable Diffusion 2.1-base on random weights, timed whenever a line arrives.

Usage: time_sd.py unet|vae-decode|text     (torch 2.9.0, diffusers 0.42.1, transformers 5.24.0)

The protocol is in `passes.py` of clip-model. diffusers computes as it does by
default, eagerly and with PyTorch's fused attention. The number of threads is OMP_NUM_THREADS.
"""

import os
import sys
from pathlib import Path

import torch

from parity import Shape

sys.path.append(str(Path(__file__).parents[3] / "clip-model/tests/scale"))
from passes import serve  # noqa: E402

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


def unet(shape):
    from diffusers import UNet2DConditionModel

    model = UNet2DConditionModel(**shape.unet).eval()
    sample, timesteps, states = torch.randn(2, 4, 64, 64), torch.full((2,), 981.0), torch.randn(2, 77, 1024)
    return lambda: model(sample, timesteps, states)


def vae_decode(shape):
    from diffusers import AutoencoderKL

    model = AutoencoderKL(**shape.vae).eval()
    latents = torch.randn(1, 4, 64, 64)
    return lambda: model.decode(latents)


def text(shape):
    from transformers import CLIPTextConfig, CLIPTextModel

    model = CLIPTextModel(CLIPTextConfig(**shape.text)).eval()
    ids = torch.randint(1, 49406, (2, 77))
    ids[:, -1] = 49407
    return lambda: model(ids)


def main():
    run = {"unet": unet, "vae-decode": vae_decode, "text": text}[sys.argv[1]](Shape("2.1-base"))
    with torch.inference_mode():
        serve(1, run)


main()
