"""Writes images/: small files of every mode and kind with what Pillow and torchvision make of them.

The pictures come from ../scale/images.py, of which this keeps a few kinds at a few small sizes. files.json has the CRC-32 of the
expected samples; for JPEGs, whose pure Rust decoder is not exact, reference.safetensors has the decoded samples themselves.

Pillow 13.0.0, torch 2.9.0, torchvision 0.24.0, safetensors 0.8.0. Run in this folder: python images.py
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zlib

from safetensors.torch import load_file, save_file

KINDS = ["rgb.png", "rgba.png", "l.png", "la.png", "1.png", "p.png", "p-transparent.png", "i16.png", "i16-low.png", "rgb16.png", "rgba16.png",
         "la16.png", "l1.png", "p1.png", "l2.png", "p2.png", "l4.png", "p4.png", "rgb-key.png", "interlaced.png", "444.jpg", "422.jpg", "420.jpg",
         "420-progressive.jpg", "l.jpg", "cmyk.jpg", "cmyk-plain.jpg", "restart.jpg", "exif.jpg", "keep-rgb.jpg"]
folder = tempfile.mkdtemp()
subprocess.run([sys.executable, "../scale/images.py", folder], check=True)
shutil.rmtree("images", ignore_errors=True)
os.makedirs("images")
tensors, files = {}, []
for file in json.load(open(f"{folder}/files.json")):
    name = file["name"]
    if not name.startswith(("05-16x16", "06-33x31", "01-1x7")) and name != "palette-too-short.png":
        continue
    if "-" in name[3:] and not name.startswith("palette") and name.split("-", 2)[2] not in KINDS:
        continue
    reference = load_file(f"{folder}/reference/{name}.safetensors")
    shutil.copy(f"{folder}/{name}", f"images/{name}")
    for key in ("rgb", "square", "rgb_first"):
        file[key] = zlib.crc32(reference[key].numpy().tobytes())
    if name.endswith(".jpg"):
        tensors[name] = reference["rgb"]
    files.append(file)
save_file(tensors, "images/reference.safetensors")
with open("images/files.json", "w") as out:
    out.write("[\n" + ",\n".join(json.dumps(file) for file in files) + "\n]\n")
