"""Each operation of timm's `rand-m9-mstd0.5-inc1` on 8-bit images, torchvision's resized crop, and timm's erasing boxes.

Written with timm 1.0.31, torchvision 0.24.0, Pillow 13.0.0. Run in this folder: python augment.py
Images: noise, smooth with saturated ends, few values, one value.
"""

import math
import random

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.data import auto_augment as aa
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

FILL = tuple(min(255, round(255 * x)) for x in (0.48145466, 0.4578275, 0.40821073))
HPARAMS = {"translate_const": 100, "img_mean": FILL, "interpolation": Image.BICUBIC}
# (level, direction): 9 is the policy's mean, 10 its end.
LEVELS = [(9.0, 1), (9.0, -1), (3.7, 1), (10.0, -1), (0.0, 1)]

rng = np.random.default_rng(3)
y, x = np.mgrid[0:15, 0:21]
smooth = np.stack([x * 12 + 3, y * 20 - 20, 128 + 200 * np.sin(x / 4) * np.cos(y / 5)], axis=-1)
images = {
    "noise": rng.integers(0, 256, (17, 13, 3)),
    "smooth": np.clip(smooth, 0, 255),
    "few": rng.choice([40, 41, 200], (12, 12, 3)),
    "flat": np.full((9, 11, 3), (7, 128, 250)),
}
images = {name: values.astype(np.uint8) for name, values in images.items()}
out = {f"image/{name}": torch.from_numpy(values) for name, values in images.items()}

for name in aa._RAND_INCREASING_TRANSFORMS:
    level_of = aa.LEVEL_TO_ARG[name]
    signed = name in ("Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel") or (
        "Increasing" in name and name not in ("PosterizeIncreasing", "SolarizeIncreasing")
    )
    for level, direction in LEVELS if level_of else [(9.0, 1)]:
        if direction < 0 and not signed:
            continue
        aa._randomly_negate = lambda v, d=direction: d * v
        arguments = level_of(level, HPARAMS) if level_of else ()
        for image, values in images.items():
            if image == "flat" and level != 9.0:
                continue
            result = aa.NAME_TO_OP[name](
                Image.fromarray(values), *arguments, fillcolor=FILL, resample=Image.BICUBIC
            )
            out[f"{name}/{level}/{direction}/{image}"] = torch.from_numpy(np.array(result))

for top, left, height, width in [(0, 0, 17, 13), (3, 2, 9, 7), (1, 5, 4, 8), (10, 0, 6, 3)]:
    crop = F.resized_crop(
        Image.fromarray(images["noise"]), top, left, height, width, [16, 16], InterpolationMode.BICUBIC
    )
    out[f"crop/{top}/{left}/{height}/{width}"] = torch.from_numpy(np.array(crop))

random.seed(5)
boxes = []
for _ in range(200):
    area, aspect = random.uniform(0.02, 1 / 3), math.exp(random.uniform(math.log(0.3), -math.log(0.3)))
    target = area * 224 * 224
    boxes.append([area, aspect, round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))])
out["boxes"] = torch.tensor(boxes, dtype=torch.float64)
save_file({name: t.contiguous() for name, t in out.items()}, "augment.safetensors")
print(len(out), "tensors")
