"""Writes preprocess.safetensors: images of odd sizes, Pillow's bicubic resize and torchvision's CLIP transform of them.

torch 2.9.0, torchvision 0.24.0, Pillow 13.0.0, numpy, safetensors 0.8.0. Run in this folder: python preprocess.py
"""

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
rng = np.random.default_rng(3)


def picture(width, height, kind):
    y, x = np.mgrid[0:height, 0:width]
    if kind == "noise":
        return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if kind == "checker":
        return np.repeat((((x + y) % 2) * 255).astype(np.uint8)[..., None], 3, 2)
    waves = [127 + 120 * np.sin(x / (3 + c) + y / (5 - c) + c) for c in range(3)]
    return np.stack(waves, -1).clip(0, 255).astype(np.uint8)


out = {}
CASES = [  # width, height, size, kind
    (37, 53, 16, "waves"), (61, 40, 16, "noise"), (16, 16, 16, "noise"), (16, 31, 16, "noise"), (35, 16, 16, "waves"),
    (7, 9, 20, "noise"), (5, 70, 16, "checker"), (33, 32, 24, "checker"), (1, 3, 8, "noise"), (50, 51, 25, "noise"), (21, 60, 16, "noise"),
]
for index, (width, height, size, kind) in enumerate(CASES):
    pixels = picture(width, height, kind)
    image = Image.fromarray(pixels)
    transform = Compose([
        Resize(size, interpolation=InterpolationMode.BICUBIC), CenterCrop(size), ToTensor(), Normalize(MEAN, STD)
    ])
    out[f"{index}.image"] = torch.from_numpy(pixels.copy())
    out[f"{index}.pixel_values"] = transform(image)
    out[f"{index}.resized"] = torch.from_numpy(np.array(image.resize((23, 11), Image.BICUBIC)))
save_file({k: v.contiguous() for k, v in out.items()}, "preprocess.safetensors")
