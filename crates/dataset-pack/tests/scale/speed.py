"""Packing and reading back photographs: this crate against Pillow, pyarrow and torch on the same files, in one run.

    cargo build --release -p dataset-pack --bins --examples
    python speed.py TARGET/release [--images 2000] [--side 512] [--rounds 3] [--work DIR] [--workers 2]

TARGET/release holds `dataset-pack` and `examples/read_back`. The files are synthetic: JPEG, quality 90, 4:2:0, longer side
512 pixels as in Food101, with the 1/f amplitudes and the correlated colours of photographs, edges and sensor noise; about 60 KB
each. Ours uses two threads, the reference `--workers` processes; both end with the same work done:

- keep: every file decoded to the end as a check, its bytes written to Parquet with label and name, synced to the disk;
- small: decoded, shorter side resized to 256 (bicubic), encoded as JPEG of quality 95 (4:4:4), written;
- read: from the folder (torch DataLoader, two workers in any case) or from the artifact: decoded, resized to 224 (bicubic), cropped, normalised.

Wall time depends on what else runs on the machine; processor time (user and system, with children) does not. Medians over rounds.

Python 3.11, Pillow 13.0.0, pyarrow 26.0.1, torch 2.9.0, torchvision 0.24.0, blake3 1.0.
"""

import argparse
import io
import json
import os
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor

import blake3
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

parser = argparse.ArgumentParser()
parser.add_argument("release")
parser.add_argument("--images", type=int, default=2000)
parser.add_argument("--side", type=int, default=512)
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--work")
parser.add_argument("--workers", type=int, default=2)
args = parser.parse_args()
work = args.work or tempfile.mkdtemp()
data, store, manifests = (f"{work}/{name}" for name in ("data", "store", "manifests"))
tree = f"{data}/photos"
NUM_CLASSES, PARTS, THREADS = 20, 4, 2


def photo(rng, height, width):
    """1/f noise in a luma and two weaker chroma channels, a few flat shapes with sharp edges, and sensor noise."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1

    def field(power, scale):
        spectrum = np.fft.rfft2(rng.normal(size=(height, width))) / frequency**power
        spectrum[0, 0] = 0
        values = np.fft.irfft2(spectrum, s=(height, width))
        return values / values.std() * scale

    luma, red, blue = 120 + field(1.4, 45), field(1.5, 14), field(1.5, 14)
    y, x = np.mgrid[:height, :width]
    for _ in range(6):
        cy, cx, ry, rx = rng.uniform(0, height), rng.uniform(0, width), *rng.uniform(20, 120, 2)
        inside = ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1
        luma[inside] += rng.normal(0, 40)
        red[inside] += rng.normal(0, 25)
        blue[inside] += rng.normal(0, 25)
    rgb = np.stack([luma + 1.4 * red, luma - 0.7 * red - 0.34 * blue, luma + 1.77 * blue], -1)
    return Image.fromarray((rgb + rng.normal(0, 1.5, rgb.shape)).clip(0, 255).astype(np.uint8))


def make(number):
    rng = np.random.default_rng(number)
    sides = (args.side, int(args.side * rng.choice([0.6667, 0.75, 1.0])))
    height, width = sides if rng.random() < 0.3 else sides[::-1]
    folder = f"{tree}/class_{number % NUM_CLASSES:02}"
    os.makedirs(folder, exist_ok=True)
    photo(rng, height, width).save(f"{folder}/{number:05}.jpg", quality=90)


def files():
    return sorted(f"{folder}/{name}" for folder, _, names in os.walk(tree) for name in names)


def check(path):
    with open(path, "rb") as file:
        encoded = file.read()
    Image.open(io.BytesIO(encoded)).load()
    return encoded


def shrink(path):
    with open(path, "rb") as file:
        image = Image.open(io.BytesIO(file.read())).convert("RGB")
    scale = 256 / min(image.size)
    size = tuple(256 if side == min(image.size) else int(side * scale) for side in image.size)
    out = io.BytesIO()
    image.resize(size, Image.Resampling.BICUBIC).save(out, "JPEG", quality=95, subsampling=0)
    return out.getvalue()


def pack_python(one):
    paths = files()
    shutil.rmtree(f"{work}/python", ignore_errors=True)
    os.makedirs(f"{work}/python")
    with ProcessPoolExecutor(args.workers) as pool:
        for part in range(PARTS):
            chunk = paths[part * len(paths) // PARTS : (part + 1) * len(paths) // PARTS]
            encoded = pool.map(one, chunk, chunksize=16)
            rows = [
                {"image": {"bytes": b, "path": os.path.basename(p)}, "label": int(p.split("/")[-2][6:])}
                for p, b in zip(chunk, encoded)
            ]
            with open(f"{work}/python/{part}.parquet", "wb") as file:
                pq.write_table(pa.Table.from_pylist(rows), file, compression="none")
                file.flush()
                os.fsync(file.fileno())


def unit(stored):
    with open(f"{manifests}/photos.toml", "rb") as file:
        digest = blake3.blake3(file.read()).hexdigest()
    spec = {"dataset": "photos", "manifest_digest": digest, "splits": ["train", "val", "test"], "image_size": 64, "num_parts": PARTS}
    if stored:
        spec["stored"] = {"shorter_side": 256, "format": {"kind": "jpeg", "quality": 95}}
    path = f"{work}/unit-{bool(stored)}.json"
    with open(path, "w") as file:
        json.dump({"spec": {"kind": "images", "spec": spec}, "inputs": {}}, file)
    return path


def pack_ours(stored):
    shutil.rmtree(store, ignore_errors=True)
    command = [f"{args.release}/dataset-pack", "--spec", unit(stored), "--store", store, "--manifests", manifests, "--data", data]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL, env={**os.environ, "RAYON_NUM_THREADS": str(THREADS)})


def read_python():
    import torch
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

    torch.set_num_threads(1)
    transform = Compose([
        Resize(224, interpolation=InterpolationMode.BICUBIC), CenterCrop(224), ToTensor(),
        Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    ])
    loader = torch.utils.data.DataLoader(ImageFolder(tree, transform), batch_size=64, num_workers=THREADS)
    total = sum(len(labels) for _, labels in loader)
    assert total == args.images, total


def read_ours(stored):
    command = [f"{args.release}/examples/read_back", unit(stored), store]
    out = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, "RAYON_NUM_THREADS": str(THREADS)})
    assert int(out.stdout.split()[0]) == args.images, out.stdout


def measure(work_done):
    """Wall and processor seconds, with children."""
    def processor():
        return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))

    os.sync()  # what one side left to the disk is not the other's to wait for
    wall, cpu = time.perf_counter(), processor()
    work_done()
    return time.perf_counter() - wall, processor() - cpu


if __name__ == "__main__":
    if not os.path.isdir(tree):
        with ProcessPoolExecutor(THREADS) as pool:
            list(pool.map(make, range(args.images), chunksize=16))
    os.makedirs(manifests, exist_ok=True)
    shutil.rmtree(manifests)
    os.makedirs(manifests)
    subprocess.run([f"{args.release}/dataset-pack", "init", tree, "--manifests", manifests], check=True)
    size = sum(os.path.getsize(path) for path in files()) / args.images
    print(f"{args.images} files of {size / 1000:.0f} KB on average; reference in {args.workers} processes, ours in {THREADS} threads; {os.cpu_count()} cores")
    import torch  # noqa: F401  (imported once, so that reading does not pay for it)
    import torchvision  # noqa: F401

    rows = {
        "pack, keep bytes": (lambda: pack_ours(False), lambda: pack_python(check)),
        "read back": (lambda: read_ours(False), read_python),
        "pack, shorter side 256": (lambda: pack_ours(True), lambda: pack_python(shrink)),
        "read back, shorter side 256 stored": (lambda: read_ours(True), read_python),
    }
    print("| work | ours, images/s wall | reference | ratio | ours, images per CPU second | reference | ratio |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    times = {name: [] for name in rows}
    for _ in range(args.rounds):
        for name, sides in rows.items():
            times[name].append([measure(side) for side in sides])
    for name, rounds in times.items():
        cells = []
        for clock in range(2):
            ours, reference = (statistics.median(args.images / r[side][clock] for r in rounds) for side in range(2))
            cells += [f"{ours:.0f}", f"{reference:.0f}", f"{ours / reference:.2f}"]
        print(f"| {name} | {' | '.join(cells)} |")
    if not args.work:
        shutil.rmtree(work)
