"""Images per second and core of decoding, resize, crop and normalisation: Pillow with torchvision against this crate.

Usage: python speed.py PROGRAM [PHOTO ...], where PROGRAM is the example `time_preprocess`, built with --release.

Both sides run in turn on one thread, from bytes in memory; medians of 9 rounds of 20 images. Processor time, not the clock on
the wall, so that other work on the machine matters little. Linux only. A synthetic picture with noise of
500 x 375 pixels as JPEG (quality 90, 4:2:0) and PNG, and every PHOTO as it is.

Pillow 13.0.0 (no SIMD build), torch 2.9.0, torchvision 0.24.0, numpy 2.4.6.
"""

import io
import os
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

ROUNDS, REPEATS = 9, 20
torch.set_num_threads(1)
resize = Compose([Resize(224, interpolation=InterpolationMode.BICUBIC), CenterCrop(224)])
values = Compose([ToTensor(), Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))])
folder = tempfile.mkdtemp()
rng = np.random.default_rng(0)
y, x = np.mgrid[0:375, 0:500]
waves = [127 + 100 * np.sin(x / (13 + c) + y / (25 - c) + c) + rng.normal(0, 12, x.shape) for c in range(3)]
picture = Image.fromarray(np.stack(waves, -1).clip(0, 255).astype(np.uint8))
picture.save(f"{folder}/picture.jpg", quality=90)
picture.save(f"{folder}/picture.png")
files = [f"{folder}/picture.jpg", f"{folder}/picture.png"] + [os.path.abspath(path) for path in sys.argv[2:]]

program = subprocess.Popen([sys.argv[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
print("JPEG decoder:", program.stdout.readline().strip())


# The processor time of another process, as clock_getcpuclockid names it.
clock = (~program.pid << 3) | 2


def ours(path):
    before = time.clock_gettime(clock)
    program.stdin.write(f"{REPEATS} {path}\n")
    program.stdin.flush()
    parts = [float(part) for part in program.stdout.readline().split()]
    seconds = (time.clock_gettime(clock) - before) / REPEATS
    # The program's own clock is on the wall: it gives the shares.
    return [part / sum(parts) * seconds for part in parts]


def pillow(data):
    steps = [0.0, 0.0, 0.0]
    for _ in range(REPEATS):
        a = time.process_time()
        image = Image.open(io.BytesIO(data))
        image.load()
        b = time.process_time()
        image = resize(image).convert("RGB")
        c = time.process_time()
        values(image)
        for index, seconds in enumerate((b - a, c - b, time.process_time() - c)):
            steps[index] += seconds / REPEATS
    return steps


print("| file | size | ours, images/s | Pillow, images/s | ratio | ours: decode, resize, values (ms) | Pillow (ms) |")
print("|---|---|---:|---:|---:|---|---|")
for path in files:
    with open(path, "rb") as file:
        data = file.read()
    size = "x".join(map(str, Image.open(path).size))
    rounds = [(ours(path), pillow(data)) for _ in range(ROUNDS + 1)][1:]
    sides = [[statistics.median(r[side][step] for r in rounds) for step in range(3)] for side in range(2)]
    totals = [statistics.median(sum(r[side]) for r in rounds) for side in range(2)]
    ratio = statistics.median(sum(r[1]) / sum(r[0]) for r in rounds)
    parts = [", ".join(f"{1000 * s:.2f}" for s in side) for side in sides]
    print(f"| {os.path.basename(path)} | {size} | {1 / totals[0]:.0f} | {1 / totals[1]:.0f} | {ratio:.2f} | {parts[0]} | {parts[1]} |")
program.stdin.close()
program.wait()
