"""Writes *.keys.tsv and pretrained.tsv: names, shapes and dtypes of public checkpoints, and what open_clip knows of them.

Models are built without weights, nothing is downloaded. Columns:

- `rn*`, `vit_*` (open_clip and OpenAI): key, shape, dtype in open_clip's file, dtype in OpenAI's file; `-` where a file
  lacks the key. OpenAI's dtypes are those of its `convert_weights`, which its files were written with; three numbers
  stand beside the weights there.
- `clip_*`, `sd2_*` (transformers): key, shape, dtype, and `extra` for buffers that only files of transformers before 4.31 hold.
- `pretrained.tsv`: backbone, tag, activation, mean of the first channel, address and digest of the original file, repository.

torch 2.9.0, transformers 5.24.0, open_clip 3.3.0. Run in this folder: python keys.py
"""

import re

import torch
from open_clip import get_model_config
from open_clip.model import CLIP, convert_weights_to_fp16
from open_clip.pretrained import _PRETRAINED
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel

DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.int64: "I64"}
OPENAI_NAMES = {name: name for name in ("RN50", "RN101", "RN50x4", "RN50x16", "RN50x64")}
OPENAI_NAMES |= {
    "ViT-B-32": "ViT-B/32", "ViT-B-16": "ViT-B/16", "ViT-L-14": "ViT-L/14", "ViT-L-14-336": "ViT-L/14@336px",
}


def shape(tensor):
    return ",".join(map(str, tensor.shape))


def write_open_clip(name, model_name):
    config = get_model_config(model_name)
    with torch.device("meta"):
        model = CLIP(**config)
        open_clip = model.state_dict()
        convert_weights_to_fp16(model)
        openai = model.state_dict()
    numbers = {
        "input_resolution": config["vision_cfg"]["image_size"],
        "context_length": config["text_cfg"]["context_length"],
        "vocab_size": config["text_cfg"]["vocab_size"],
    }
    openai |= {key: torch.tensor(number) for key, number in numbers.items()}
    with open(f"{name}.keys.tsv", "w") as f:
        for key in sorted(openai):
            ours = DTYPES[open_clip[key].dtype] if key in open_clip else "-"
            f.write(f"{key}\t{shape(openai[key])}\t{ours}\t{DTYPES[openai[key].dtype]}\n")


def write_transformers(name, state, buffers=()):
    lines = [f"{key}\t{shape(tensor)}\t{DTYPES[tensor.dtype]}\t\n" for key, tensor in state.items()]
    lines += [f"{key}\t1,{rows}\tI64\textra\n" for key, rows in buffers]
    with open(f"{name}.keys.tsv", "w") as f:
        f.writelines(sorted(lines))


def write_clip(name, **config):
    with torch.device("meta"):
        model = CLIPModel(CLIPConfig(**config))
    vision = model.config.vision_config
    rows = (vision.image_size // vision.patch_size) ** 2 + 1
    buffers = [("text_model.embeddings.position_ids", 77), ("vision_model.embeddings.position_ids", rows)]
    write_transformers(name, model.state_dict(), buffers)


for name, model_name in [
    ("rn50", "RN50"), ("rn101", "RN101"), ("rn50x4", "RN50x4"), ("rn50x16", "RN50x16"), ("rn50x64", "RN50x64"),
    ("vit_b_32", "ViT-B-32"), ("vit_b_16", "ViT-B-16"), ("vit_l_14", "ViT-L-14"), ("vit_l_14_336", "ViT-L-14-336"),
]:
    write_open_clip(name, model_name)

write_clip("clip_vit_base_patch32")
write_clip("clip_vit_base_patch16", vision_config={"patch_size": 16})
for name, image_size in [("clip_vit_large_patch14", 224), ("clip_vit_large_patch14_336", 336)]:
    write_clip(
        name,
        text_config={"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "projection_dim": 768},
        vision_config={
            "hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 24,
            "patch_size": 14, "projection_dim": 768, "image_size": image_size,
        },
        projection_dim=768,
    )

# The text encoder of Stable Diffusion 2; published files put it below text_model.
with torch.device("meta"):
    text = CLIPTextModel(CLIPTextConfig(
        vocab_size=49408, hidden_size=1024, intermediate_size=4096, num_hidden_layers=23, num_attention_heads=16,
        hidden_act="gelu", projection_dim=512,
    ))
state = {"text_model." + key.removeprefix("text_model."): tensor for key, tensor in text.state_dict().items()}
write_transformers("sd2_text_encoder", state)

with open("pretrained.tsv", "w") as f:
    for model_name, name in OPENAI_NAMES.items():
        for tag, facts in _PRETRAINED[model_name].items():
            # Small training sets of the DataComp study.
            if tag.startswith(("commonpool", "datacomp_s_", "datacomp_m_", "datacomp_l_")):
                continue
            assert facts["interpolation"] == "bicubic" and facts["resize_mode"] == "shortest"
            digest = re.search(r"/([0-9a-f]{64})/|-([0-9a-f]{8})\.pth?$", facts["url"])
            digest = next(filter(None, digest.groups())) if digest else ""
            activation = "quick_gelu" if facts.get("quick_gelu") else "gelu"
            row = name, tag, activation, facts["mean"][0], facts["url"], digest, facts["hf_hub"].rstrip("/")
            f.write("\t".join(map(str, row)) + "\n")
