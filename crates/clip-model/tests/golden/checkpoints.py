"""Writes random CLIPs in every layout, with the embeddings that open_clip and transformers give.

`python checkpoints.py` writes the small models of checkpoints/, which the tests read.
`python checkpoints.py full FOLDER IMAGE... -- TEXT...` writes ViT-B/32 and RN50 in full size, some gigabytes, and the
reference embeddings of the images and texts: the other side of `examples/encode.rs`.

OpenAI's files are TorchScript modules that hold the weights in f16 where OpenAI's `convert_weights` puts it and three numbers
beside. Weights are f16 values in every file, so all layouts of a model have the same embeddings.

torch 2.9.0, transformers 5.24.0, open_clip 3.3.0, safetensors 0.8.0. Run in this folder.
"""

import copy
import gzip
import json
import os
import sys

import open_clip
import torch
from open_clip.model import CLIP, CustomTextCLIP, convert_to_custom_text_state_dict, convert_weights_to_fp16
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel

STATISTICS = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}


def random_model(config, seed):
    torch.manual_seed(seed)
    model = CLIP(**config).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name != "logit_scale":
                p.add_((0.1 if p.dim() == 1 else 0.2 * p.std()) * torch.randn_like(p))
            p.copy_(p.half().float())
        for name, b in model.named_buffers():
            if name.endswith("running_mean"):
                b.copy_((0.1 * torch.randn_like(b)).half().float())
            if name.endswith("running_var"):
                b.copy_((0.8 + 0.4 * torch.rand_like(b)).half().float())
            if name.endswith("num_batches_tracked"):
                b.fill_(7)
    return model


class Module(torch.nn.Module):
    """The children and parameters of a model with OpenAI's three numbers."""

    def __init__(self, model, config):
        super().__init__()
        for name, child in model.named_children():
            self.add_module(name, child)
        for name, p in model._parameters.items():
            self.register_parameter(name, p)
        for name, number in [
            ("input_resolution", config["vision_cfg"]["image_size"]),
            ("context_length", config["text_cfg"]["context_length"]),
            ("vocab_size", config["text_cfg"]["vocab_size"]),
        ]:
            self.register_buffer(name, torch.tensor(number))

    def forward(self, pixels, ids):
        text = self.transformer(self.token_embedding(ids) + self.positional_embedding)
        return self.visual(pixels), self.ln_final(text) @ self.text_projection * self.logit_scale.exp()


def save_torchscript(model, config, path):
    """As OpenAI published: traced in f32, then the same parameters in f16."""
    size, length = config["vision_cfg"]["image_size"], config["text_cfg"]["context_length"]
    inputs = torch.randn(1, 3, size, size), torch.zeros(1, length, dtype=torch.long)
    traced = torch.jit.trace(Module(model, config), inputs, check_trace=False)
    with torch.device("meta"):
        low = CLIP(**config)
        convert_weights_to_fp16(low)
    dtypes = {name: p.dtype for name, p in low.named_parameters()}
    for name, p in traced.named_parameters():
        p.data = p.data.to(dtypes[name])
    torch.jit.save(traced, path)
    for name, p in model.named_parameters():
        p.data = p.data.float()


def drop_debug_records(path):
    """Rewrites a TorchScript file with torch's own writer, without the source ranges, a fifth of a small file."""
    reader = torch._C.PyTorchFileReader(path)
    records = {name: reader.get_record(name) for name in reader.get_all_records()}
    del reader
    writer = torch._C.PyTorchFileWriter(path)
    for name, data in records.items():
        # The writer adds these itself.
        if not name.endswith(".debug_pkl") and name not in ("version", "byteorder", ".data/serialization_id"):
            writer.write_record(name, data, len(data))
    writer.write_end_of_file()
    torch.jit.load(path)


def transformers_state(state):
    """The names of transformers for those of open_clip."""
    out = {
        "logit_scale": state["logit_scale"],
        "text_projection.weight": state["text_projection"].T,
        "visual_projection.weight": state["visual.proj"].T,
        "text_model.embeddings.token_embedding.weight": state["token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": state["positional_embedding"],
        "vision_model.embeddings.class_embedding": state["visual.class_embedding"],
        "vision_model.embeddings.patch_embedding.weight": state["visual.conv1.weight"],
        "vision_model.embeddings.position_embedding.weight": state["visual.positional_embedding"],
    }
    for ours, theirs in [
        ("ln_final", "text_model.final_layer_norm"),
        ("visual.ln_pre", "vision_model.pre_layrnorm"),
        ("visual.ln_post", "vision_model.post_layernorm"),
    ]:
        out |= {f"{theirs}.{kind}": state[f"{ours}.{kind}"] for kind in ("weight", "bias")}
    for key, tensor in state.items():
        if ".resblocks." not in key:
            continue
        tower = "vision_model" if key.startswith("visual.") else "text_model"
        index, rest = key.split(".resblocks.")[1].split(".", 1)
        prefix = f"{tower}.encoder.layers.{index}"
        if rest.startswith("attn.in_proj_"):
            for name, part in zip("qkv", tensor.chunk(3)):
                out[f"{prefix}.self_attn.{name}_proj.{rest.removeprefix('attn.in_proj_')}"] = part
            continue
        for a, b in [
            ("ln_1", "layer_norm1"), ("ln_2", "layer_norm2"), ("attn.out_proj", "self_attn.out_proj"),
            ("mlp.c_fc", "mlp.fc1"), ("mlp.c_proj", "mlp.fc2"),
        ]:
            rest = rest.replace(a, b)
        out[f"{prefix}.{rest}"] = tensor
    return {key: tensor.contiguous() for key, tensor in out.items()}


def transformers_model(model, config):
    vision, text = config["vision_cfg"], config["text_cfg"]
    act = "quick_gelu" if config["quick_gelu"] else "gelu"
    hf = CLIPModel(CLIPConfig(
        text_config={
            "hidden_size": text["width"], "intermediate_size": int(text["width"] * text.get("mlp_ratio", 4)),
            "num_hidden_layers": text["layers"], "num_attention_heads": text["heads"], "hidden_act": act,
            "vocab_size": text["vocab_size"], "max_position_embeddings": text["context_length"],
            "projection_dim": config["embed_dim"], "eos_token_id": text["vocab_size"] - 1,
            "bos_token_id": text["vocab_size"] - 2,
        },
        vision_config={
            "hidden_size": vision["width"], "intermediate_size": int(vision["width"] * vision.get("mlp_ratio", 4)),
            "num_hidden_layers": vision["layers"], "num_attention_heads": vision["width"] // vision.get("head_width", 64), "hidden_act": act,
            "image_size": vision["image_size"], "patch_size": vision["patch_size"], "projection_dim": config["embed_dim"],
        },
        projection_dim=config["embed_dim"],
    )).eval()
    hf.load_state_dict(transformers_state(model.state_dict()))
    return hf


def halves(state):
    return {k: v.half().contiguous() if v.is_floating_point() else v.contiguous() for k, v in state.items()}


def write_json(value, path):
    with open(path, "w") as f:
        json.dump(value, f, indent=2)


def open_clip_config(config):
    return {"model_cfg": config, "preprocess_cfg": STATISTICS | {"interpolation": "bicubic", "resize_mode": "shortest"}}


def embeddings(model, pixels, ids):
    with torch.no_grad():
        image, text = model.encode_image(pixels, normalize=True), model.encode_text(ids, normalize=True)
        logits = (model.logit_scale.exp() * image @ text.T).contiguous()
        return {"image_embeds": image, "text_embeds": text, "logits": logits}


def transformers_embeddings(model, pixels, ids):
    with torch.no_grad():
        out = model(pixel_values=pixels, input_ids=ids)
        logits = out.logits_per_image.contiguous()
        return {"image_embeds": out.image_embeds, "text_embeds": out.text_embeds, "logits": logits}


def low_precision(model, pixels, ids):
    """What PyTorch gives with parameters and pixels in bf16 and f16."""
    out = {}
    for name, dtype in [("bf16", torch.bfloat16), ("f16", torch.float16)]:
        low = embeddings(copy.deepcopy(model).to(dtype), pixels.to(dtype), ids)
        out |= {f"{key}.{name}": tensor.float() for key, tensor in low.items()}
    return out


def small():
    text = {"context_length": 8, "vocab_size": 50, "width": 64, "heads": 1, "layers": 1, "mlp_ratio": 0.25}
    vit = {
        "embed_dim": 16, "quick_gelu": True, "text_cfg": text,
        "vision_cfg": {"image_size": 12, "layers": 2, "width": 64, "patch_size": 4, "mlp_ratio": 0.25},
    }
    resnet = {
        "embed_dim": 16, "quick_gelu": True, "text_cfg": text,
        "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 2, "patch_size": None},
    }
    for name, config, seed in [("vit", vit, 0), ("resnet", resnet, 1)]:
        folder = f"checkpoints/{name}"
        os.makedirs(f"{folder}/transformers", exist_ok=True)
        model = random_model(config, seed)
        size = config["vision_cfg"]["image_size"]
        pixels, ids = torch.randn(3, 3, size, size), torch.randint(0, 48, (4, 8))
        ids[0, 4:], ids[1, 7], ids[2, 2], ids[3, 5] = 49, 49, 49, 49
        inputs = {"pixel_values": pixels, "input_ids": ids}
        expected = embeddings(model, pixels, ids)
        save_file(inputs | expected, f"{folder}/expected.safetensors")
        save_file(low_precision(model, pixels, ids), f"{folder}/low_precision.safetensors")
        save_torchscript(model, config, f"{folder}/openai.pt")
        drop_debug_records(f"{folder}/openai.pt")
        state = halves(model.state_dict())
        write_json(open_clip_config(config), f"{folder}/open_clip_config.json")
        if name == "resnet":
            save_file(state, f"{folder}/open_clip_model.safetensors")
            os.rmdir(f"{folder}/transformers")
            continue
        torch.save(state, f"{folder}/open_clip_pytorch_model.bin")
        # A text projection in another memory order, as an exported transpose has it.
        strided = state | {"text_projection": state["text_projection"].T.contiguous().T}
        torch.save(strided, f"{folder}/legacy.pt", _use_new_zipfile_serialization=False)
        training = {
            "epoch": 1, "name": "small", "state_dict": {f"module.{key}": tensor for key, tensor in state.items()},
            "optimizer": torch.optim.AdamW(model.parameters()).state_dict(),
        }
        torch.save(training, f"{folder}/epoch_1.pt")
        hf = transformers_model(model, config)
        torch.testing.assert_close(transformers_embeddings(hf, pixels, ids), expected)
        hf.config.save_pretrained(f"{folder}/transformers")
        rows = hf.vision_model.embeddings.num_positions
        buffers = {
            "text_model.embeddings.position_ids": torch.arange(8)[None],
            "vision_model.embeddings.position_ids": torch.arange(rows)[None],
        }
        torch.save(halves(hf.state_dict()) | buffers, f"{folder}/transformers/pytorch_model.bin")


def tiny():
    """Checkpoints in several files, and the text tower below `text.` as in open_clip's CustomTextCLIP."""
    config = {
        "embed_dim": 8, "quick_gelu": True,
        "text_cfg": {"context_length": 8, "vocab_size": 50, "width": 16, "heads": 2, "layers": 2, "mlp_ratio": 4},
        "vision_cfg": {"image_size": 12, "layers": 2, "width": 16, "head_width": 8, "patch_size": 4, "mlp_ratio": 4},
    }
    model = random_model(config, 3)
    pixels, ids = torch.randn(2, 3, 12, 12), torch.randint(0, 48, (2, 8))
    ids[0, 4:], ids[1, 7] = 49, 49
    expected = {"pixel_values": pixels, "input_ids": ids} | embeddings(model, pixels, ids)
    folders = {name: f"checkpoints/{name}" for name in ("sharded", "sharded_bin", "custom_text")}
    for folder in folders.values():
        os.makedirs(folder, exist_ok=True)

    hf = transformers_model(model, config)
    torch.testing.assert_close(transformers_embeddings(hf, pixels, ids), {k: expected[k] for k in list(expected)[2:]})
    hf = hf.half()
    hf.save_pretrained(folders["sharded"], max_shard_size="16KB")
    save_file(expected, f"{folders['sharded']}/expected.safetensors")
    # transformers 5 writes safetensors only; its files before had the same index beside pickles.
    state = {key: tensor.clone() for key, tensor in hf.state_dict().items()}
    names = {key: f"pytorch_model-0000{1 + index * 2 // len(state)}-of-00002.bin" for index, key in enumerate(state)}
    for name in set(names.values()):
        torch.save({key: state[key] for key in state if names[key] == name}, f"{folders['sharded_bin']}/{name}")
    size = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    index = {"metadata": {"total_size": size}, "weight_map": names}
    write_json(index, f"{folders['sharded_bin']}/pytorch_model.bin.index.json")
    hf.config.save_pretrained(folders["sharded_bin"])

    custom = CustomTextCLIP(**config).eval()
    custom.load_state_dict(convert_to_custom_text_state_dict(model.state_dict()))
    torch.testing.assert_close(embeddings(custom, pixels, ids), {k: expected[k] for k in list(expected)[2:]})
    save_file(halves(custom.state_dict()), f"{folders['custom_text']}/open_clip_model.safetensors")
    write_json(open_clip_config(config | {"custom_text": True}), f"{folders['custom_text']}/open_clip_config.json")


def write_tokenizer(folder):
    """CLIP's vocabulary as vocab.json and merges.txt, from open_clip's file."""
    path = os.path.join(os.path.dirname(open_clip.__file__), "bpe_simple_vocab_16e6.txt.gz")
    merges = gzip.open(path).read().decode().split("\n")[1:49152 - 256 - 2 + 1]
    encoder = open_clip.tokenizer.SimpleTokenizer().encoder
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    write_json({names.get(token, token): index for token, index in encoder.items()}, f"{folder}/vocab.json")
    with open(f"{folder}/merges.txt", "w") as f:
        f.write("#version: 0.2\n" + "\n".join(merges) + "\n")


def full(folder, images, texts):
    for slug, name in [("vit-b-32", "ViT-B-32"), ("rn50", "RN50")]:
        config = open_clip.get_model_config(name) | {"quick_gelu": True}
        model = random_model(config, 2)
        out = {layout: f"{folder}/{slug}/{layout}" for layout in (
            "openai", "open_clip", "open_clip_bin", "transformers", "transformers_bin",
        )}
        if slug == "rn50":
            out = {layout: path for layout, path in out.items() if "transformers" not in layout}
        for path in out.values():
            os.makedirs(path, exist_ok=True)
            write_tokenizer(path)
        transform = open_clip.transform.image_transform(config["vision_cfg"]["image_size"], is_train=False)
        pixels = torch.stack([transform(Image.open(image)) for image in images])
        ids = open_clip.get_tokenizer(name)(texts)
        expected = {"pixel_values": pixels, "input_ids": ids} | embeddings(model, pixels, ids)
        save_file(expected, f"{folder}/{slug}/expected.safetensors")
        state = model.state_dict()
        for layout in ("open_clip", "open_clip_bin"):
            write_json(open_clip_config(config), f"{out[layout]}/open_clip_config.json")
        save_file({k: v.contiguous() for k, v in state.items()}, f"{out['open_clip']}/open_clip_model.safetensors")
        torch.save(state, f"{out['open_clip_bin']}/open_clip_pytorch_model.bin")
        if slug != "rn50":
            hf = transformers_model(model, config)
            save_file(
                {"pixel_values": pixels, "input_ids": ids} | transformers_embeddings(hf, pixels, ids),
                f"{folder}/{slug}/expected_transformers.safetensors",
            )
            hf.save_pretrained(out["transformers"])
            hf.config.save_pretrained(out["transformers_bin"])
            torch.save(hf.state_dict(), f"{out['transformers_bin']}/pytorch_model.bin")
        save_torchscript(model, config, f"{out['openai']}/{name}.pt")


if sys.argv[1:2] == ["full"]:
    split = sys.argv.index("--")
    full(sys.argv[2], sys.argv[3:split], sys.argv[split + 1:])
else:
    small()
    tiny()
