"""References of CLIP's full-size towers from open_clip and transformers on random weights.

Usage: parity.py FOLDER BACKBONE...     (torch 2.9.0, open_clip 3.3.0, transformers 5.24.0)

For each backbone (RN50, RN101, RN50x4, ViT-B-32, ViT-B-16, ViT-L-14) writes FOLDER/<backbone>-<library>/ with the checkpoint in the
library's own layout and `reference.safetensors`: inputs, embeddings (unit norm), logits, the contrastive loss of one training step
and the gradient norm of every layer. Weights come from the library's own initialisation with seed 0; batch norm statistics are
moved away from their start by random numbers.
"""

import json
import re
import sys
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import save_file

BATCH = 4


def layer(key):
    """The layer that a parameter belongs to, for both libraries' names."""
    key = key.replace("text_model.", "text.").replace("vision_model.", "visual.")
    if key in ("logit_scale",):
        return key
    tower = "image" if key.startswith(("visual.", "visual_projection")) else "text"
    block = re.search(r"(?:resblocks|encoder\.layers)\.(\d+)\.", key)
    if block:
        return f"{tower}.layers.{block[1]}"
    stage = re.search(r"(layer\d)\.(\d+)\.", key)
    if stage:
        return f"{tower}.{stage[1]}.{stage[2]}"
    head = ("attnpool", "ln_post", "ln_final", "proj", "post_layernorm", "final_layer_norm")
    return f"{tower}.head" if any(word in key for word in head) else f"{tower}.stem"


def inputs(image_size, context, vocab):
    pixel_values = torch.randn(BATCH, 3, image_size, image_size)
    input_ids = torch.zeros(BATCH, context, dtype=torch.long)
    for row in range(BATCH):
        length = 5 + 17 * row
        input_ids[row, 0] = vocab - 2
        input_ids[row, 1 : length - 1] = torch.randint(1, vocab - 2, (length - 2,))
        input_ids[row, length - 1] = vocab - 1
    return pixel_values, input_ids


def shake_statistics(model):
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0.0, 0.1)
            module.running_var.uniform_(0.5, 1.5)


def reference(model, encode, scale, pixel_values, input_ids):
    tensors = {"pixel_values": pixel_values, "input_ids": input_ids}
    model.eval()
    with torch.no_grad():
        image, text = encode(pixel_values, input_ids)
        tensors |= {"image_embeds": image, "text_embeds": text, "logits": scale() * image @ text.T}
    model.train()
    image, text = encode(pixel_values, input_ids)
    logits = scale() * image @ text.T
    labels = torch.arange(BATCH)
    loss = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    loss.backward()
    squares = {}
    for key, parameter in model.named_parameters():
        if parameter.grad is not None:
            name = layer(key)
            squares[name] = squares.get(name, 0.0) + parameter.grad.double().square().sum()
    tensors["loss"] = loss.detach().reshape(1)
    tensors |= {f"grad_norm.{name}": square.sqrt().float().reshape(1) for name, square in squares.items()}
    return {key: value.detach().clone().contiguous() for key, value in tensors.items()}


def with_open_clip(folder, name):
    config = open_clip.get_model_config(name) | {"quick_gelu": True}
    model = open_clip.CLIP(**config)
    shake_statistics(model)
    pixels, ids = inputs(config["vision_cfg"]["image_size"], 77, 49408)
    folder.mkdir(parents=True, exist_ok=True)
    state = {key: value.clone().contiguous() for key, value in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    preprocess = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}, indent=2)
    )
    encode = lambda pixels, ids: (model.encode_image(pixels, normalize=True), model.encode_text(ids, normalize=True))
    tensors = reference(model, encode, lambda: model.logit_scale.exp(), pixels, ids)
    save_file(tensors, folder / "reference.safetensors")


def with_transformers(folder, name):
    vision = open_clip.get_model_config(name)["vision_cfg"]
    text = open_clip.get_model_config(name)["text_cfg"]
    config = transformers.CLIPConfig(
        projection_dim=open_clip.get_model_config(name)["embed_dim"],
        text_config={
            "hidden_size": text["width"], "intermediate_size": 4 * text["width"], "num_attention_heads": text["heads"],
            "num_hidden_layers": text["layers"], "eos_token_id": 49407, "bos_token_id": 49406, "pad_token_id": 49407,
        },
        vision_config={
            "hidden_size": vision["width"], "intermediate_size": 4 * vision["width"],
            "num_attention_heads": vision["width"] // vision.get("head_width", 64),
            "num_hidden_layers": vision["layers"], "image_size": vision["image_size"], "patch_size": vision["patch_size"],
        },
    )
    model = transformers.CLIPModel(config)
    pixels, ids = inputs(vision["image_size"], 77, 49408)
    model.save_pretrained(folder)

    def encode(pixels, ids):
        output = model(input_ids=ids, pixel_values=pixels)
        return output.image_embeds, output.text_embeds

    tensors = reference(model, encode, lambda: model.logit_scale.exp(), pixels, ids)
    save_file(tensors, folder / "reference.safetensors")


def main():
    folder = Path(sys.argv[1])
    torch.set_num_threads(2)
    for name in sys.argv[2:]:
        torch.manual_seed(0)
        with_open_clip(folder / f"{name}-open_clip", name)
        if name.startswith("ViT"):
            torch.manual_seed(0)
            with_transformers(folder / f"{name}-transformers", name)


if __name__ == "__main__":
    main()
