"""Writes several hundred image files of all kinds into OUT, and what Pillow and torchvision make of them into OUT/reference.

Usage: python images.py OUT [PHOTO ...]; then: cargo run --release -p clip-model --example compare_images -- OUT

Kinds: PNG of modes 1, L (2, 4 and 8 bits), LA, I;16, RGB, RGBA, P (with and without transparency), 16 bits per channel, interlaced;
JPEG grey, RGB and CMYK, with every subsampling, baseline and progressive, optimised, with restart markers, with EXIF
orientation. Sizes from 1 x 1 over odd ones to panoramas. PHOTO: real photographs, used as they are and saved again as JPEG.

For each file: `rgb`, Image.open(..).convert("RGB"); `square` and `values`, the transform of openai/CLIP and open_clip
(Resize, CenterCrop, RGB, ToTensor, Normalize); `rgb_first`, the same with the conversion in front, as CoOp's loader does.

Pillow 13.0.0, torch 2.9.0, torchvision 0.24.0, numpy 2.4.6, safetensors 0.8.0.
"""

import io
import json
import os
import struct
import sys
import zlib

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFile
from safetensors.torch import save_file
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
OUT = sys.argv[1]
ImageFile.MAXBLOCK = 1 << 24  # or Pillow fails to write progressive noise
rng = np.random.default_rng(11)
os.makedirs(f"{OUT}/reference", exist_ok=True)
names = []


def picture(width, height, kind):
    """RGB samples [height, width, 3]."""
    y, x = np.mgrid[0:height, 0:width]
    if kind == "noise":
        return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if kind == "gradient":
        planes = [x * 255 / max(width - 1, 1), y * 255 / max(height - 1, 1), (x + y) * 255 / max(width + height - 2, 1)]
        return np.stack(planes, -1).astype(np.uint8)
    if kind == "drawing":  # flat colours and hard edges, as emoji have
        image = Image.new("RGB", (width, height), tuple(rng.integers(0, 256, 3).tolist()))
        draw = ImageDraw.Draw(image)
        for _ in range(12):
            a, b = sorted(rng.integers(0, width, 2).tolist()), sorted(rng.integers(0, height, 2).tolist())
            shape = draw.ellipse if rng.random() < 0.6 else draw.rectangle
            shape([a[0], b[0], a[1], b[1]], fill=tuple(rng.integers(0, 256, 3).tolist()))
        return np.array(image)
    waves = [127 + 90 * np.sin(x / (7 + 3 * c) + y / (11 - c) + c) + rng.normal(0, 10, (height, width)) for c in range(3)]
    return np.stack(waves, -1).clip(0, 255).astype(np.uint8)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def raw_png(samples, bits, color, palette=None, transparency=None, interlaced=False):
    """A PNG of samples [height, width, channels], for the kinds that Pillow does not write."""
    height, width, channels = samples.shape

    def scanlines(part):
        out = b""
        for row in part:
            flat = row.reshape(-1)
            if bits == 16:
                data = flat.astype(">u2").tobytes()
            elif bits == 8:
                data = flat.astype(np.uint8).tobytes()
            else:
                digits = ((flat[:, None] >> np.arange(bits - 1, -1, -1)) & 1).astype(np.uint8).reshape(-1)
                data = np.packbits(digits).tobytes()
            out += b"\0" + data
        return out

    if interlaced:
        parts = [samples[y0::dy, x0::dx] for x0, y0, dx, dy in ADAM7]
        data = b"".join(scanlines(p) for p in parts if p.size)
    else:
        data = scanlines(samples)
    out = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, interlaced))
    if palette is not None:
        out += chunk(b"PLTE", palette.astype(np.uint8).tobytes())
    if transparency is not None:
        out += chunk(b"tRNS", transparency)
    return out + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def cmyk_without_adobe(data):
    """Drops the APP14 segment."""
    at = data.index(b"\xff\xee")
    length = struct.unpack(">H", data[at + 2:at + 4])[0]
    return data[:at] + data[at + 2 + length:]


def add(name, data, size):
    path = f"{OUT}/{name}"
    with open(path, "wb") as file:
        file.write(data)
    steps = [ToTensor(), Normalize(MEAN, STD)]
    square = Compose([Resize(size, interpolation=InterpolationMode.BICUBIC), CenterCrop(size)])
    image = Image.open(path)
    mode = image.mode
    rgb = image.convert("RGB")
    late = square(Image.open(path)).convert("RGB")
    tensors = {
        "rgb": torch.from_numpy(np.array(rgb)),
        "square": torch.from_numpy(np.array(late)),
        "rgb_first": torch.from_numpy(np.array(square(rgb))),
        "values": Compose(steps)(late),
    }
    save_file({k: v.contiguous() for k, v in tensors.items()}, f"{OUT}/reference/{name}.safetensors")
    names.append({"name": name, "mode": mode, "size": size})


def save(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


SIZES = [(1, 1), (1, 7), (7, 1), (2, 3), (15, 17), (16, 16), (33, 31), (64, 48), (101, 67), (224, 224), (225, 500), (333, 250),
         (500, 375), (641, 199), (3, 900), (1200, 5), (1, 400), (1500, 120)]
KINDS = ["noise", "gradient", "drawing", "waves"]
for index, (width, height) in enumerate(SIZES):
    kind, size = KINDS[index % 4], [224, 32, 56, 224][index % 4]
    tag = f"{index:02}-{width}x{height}"
    rgb = picture(width, height, kind)
    alpha = picture(width, height, KINDS[(index + 1) % 4])[..., :1]
    alpha[rng.random(alpha.shape) < 0.2] = 0
    image, grey = Image.fromarray(rgb), Image.fromarray(rgb).convert("L")
    wide = (rgb.astype(np.uint16) << 8) | rng.integers(0, 256, rgb.shape, dtype=np.uint16)
    small_grey = (rgb[..., :1].astype(np.uint16) * 3) >> 1
    save_png = lambda image, **options: save(image, format="PNG", **options)
    quantized = image.quantize(max(2, min(64, width * height)))
    add(f"{tag}-rgb.png", save_png(image), size)
    add(f"{tag}-rgba.png", save_png(Image.fromarray(np.concatenate([rgb, alpha], -1))), size)
    add(f"{tag}-l.png", save_png(grey), size)
    add(f"{tag}-la.png", save_png(Image.fromarray(np.concatenate([rgb[..., :1], alpha], -1), "LA")), size)
    add(f"{tag}-1.png", save_png(image.convert("1")), size)
    add(f"{tag}-p.png", save_png(quantized), size)
    add(f"{tag}-p-transparent.png", save_png(quantized, transparency=0), size)
    add(f"{tag}-i16.png", raw_png(wide[..., :1], 16, 0, interlaced=index % 2 == 1), size)
    add(f"{tag}-i16-low.png", raw_png(small_grey, 16, 0), size)
    add(f"{tag}-rgb16.png", raw_png(wide, 16, 2, interlaced=index % 3 == 1), size)
    wide_alpha = np.concatenate([wide, wide[..., :1]], -1)
    add(f"{tag}-rgba16.png", raw_png(wide_alpha, 16, 6), size)
    add(f"{tag}-la16.png", raw_png(wide[..., :2], 16, 4), size)
    for bits in (1, 2, 4):
        levels = rgb[..., :1] >> (8 - bits)
        add(f"{tag}-l{bits}.png", raw_png(levels, bits, 0, interlaced=index % 2 == 0), size)
        colors = rng.integers(0, 256, (2**bits - (bits > 1), 3))  # one colour less than the indices can name
        indices = np.minimum(levels, len(colors) - 1)
        add(f"{tag}-p{bits}.png", raw_png(indices, bits, 3, colors, b"\x00\x80", interlaced=index % 2 == 1), size)
    add(f"{tag}-rgb-key.png", raw_png(rgb, 8, 2, transparency=struct.pack(">HHH", *rgb[0, 0].tolist())), size)
    add(f"{tag}-interlaced.png", raw_png(rgb, 8, 2, interlaced=True), size)
    jpeg = lambda image, **options: save(image, format="JPEG", **options)
    for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
        for progressive in (False, True):
            label = f"{tag}-{subsampling.replace(':', '')}{'-progressive' if progressive else ''}.jpg"
            quality = int(rng.choice([30, 75, 90, 95, 100]))
            add(label, jpeg(image, quality=quality, subsampling=subsampling, progressive=progressive), size)
    add(f"{tag}-l.jpg", jpeg(grey, quality=85), size)
    add(f"{tag}-l-progressive.jpg", jpeg(grey, quality=60, progressive=True), size)
    cmyk = jpeg(Image.fromarray(np.concatenate([rgb, alpha], -1), "CMYK"), quality=90)
    add(f"{tag}-cmyk.jpg", cmyk, size)
    add(f"{tag}-cmyk-plain.jpg", cmyk_without_adobe(cmyk), size)
    add(f"{tag}-optimized.jpg", jpeg(image, quality=80, optimize=True), size)
    add(f"{tag}-restart.jpg", jpeg(image, quality=80, restart_marker_blocks=3), size)
    exif = Image.Exif()
    exif[0x0112] = 6
    add(f"{tag}-exif.jpg", jpeg(image, quality=92, exif=exif), size)
    add(f"{tag}-keep-rgb.jpg", jpeg(image, quality=92, keep_rgb=True), size)

out_of_palette = raw_png(np.arange(16, dtype=np.uint8).reshape(4, 4, 1), 8, 3, rng.integers(0, 256, (9, 3)))
add("palette-too-short.png", out_of_palette, 32)
for path in sys.argv[2:]:
    name = os.path.basename(path)
    with open(path, "rb") as file:
        data = file.read()
    add(f"photo-{name}", data, 224)
    image = Image.open(path).convert("RGB")
    for index, options in enumerate([{"quality": 75}, {"quality": 95, "subsampling": "4:4:4"}, {"quality": 90, "progressive": True}]):
        add(f"photo-{name}-{index}.jpg", save(image, format="JPEG", **options), 224)
with open(f"{OUT}/files.json", "w") as file:
    json.dump(names, file)
print(len(names), "files")
