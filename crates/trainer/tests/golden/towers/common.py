"""A tiny CLIP, images and prompts that the references of CoOp, CLIP-LoRA and 2SFS share.

`python common.py` writes start.safetensors (the CLIP, in transformers' names) and data.safetensors; every other script here
writes the file of its name. Written with torch 2.9.0 and safetensors. All in f64 on f32 values, so that a difference is the
port's rounding. Full batches, so that the order of the images does not matter.
"""

import math
import pathlib

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

HERE = pathlib.Path(__file__).parent
SIDE, PATCH, WIDTH, MLP, LAYERS, HEADS, CLASSES, IMAGES = 16, 8, 16, 32, 2, 2, 3, 6
VOCAB, POSITIONS, DIM = 20, 12, 12
START, END = VOCAB - 2, VOCAB - 1
SCALE = 20.0
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)


def make():
    g = torch.Generator().manual_seed(31)
    noise = lambda *shape, std=0.3: torch.randn(*shape, generator=g) * std
    p = {
        "text_model.embeddings.token_embedding.weight": noise(VOCAB, WIDTH),
        "text_model.embeddings.position_embedding.weight": noise(POSITIONS, WIDTH, std=0.1),
        "vision_model.embeddings.class_embedding": noise(WIDTH),
        "vision_model.embeddings.patch_embedding.weight": noise(WIDTH, 3, PATCH, PATCH, std=0.05),
        "vision_model.embeddings.position_embedding.weight": noise((SIDE // PATCH) ** 2 + 1, WIDTH),
        "text_projection.weight": noise(DIM, WIDTH),
        "visual_projection.weight": noise(DIM, WIDTH),
        "logit_scale": torch.tensor(math.log(SCALE)),
    }
    norms = ["text_model.final_layer_norm", "vision_model.pre_layrnorm", "vision_model.post_layernorm"]
    for tower in ("text_model", "vision_model"):
        for layer in range(LAYERS):
            at = f"{tower}.encoder.layers.{layer}."
            norms += [at + "layer_norm1", at + "layer_norm2"]
            square = [(f"self_attn.{n}_proj", WIDTH, WIDTH) for n in ("q", "k", "v", "out")]
            for name, inputs, outputs in square + [("mlp.fc1", WIDTH, MLP), ("mlp.fc2", MLP, WIDTH)]:
                p[at + name + ".weight"], p[at + name + ".bias"] = noise(outputs, inputs), noise(outputs, std=0.05)
    for name in norms:
        p[name + ".weight"], p[name + ".bias"] = 1 + noise(WIDTH, std=0.1), noise(WIDTH, std=0.1)
    labels = torch.arange(CLASSES).repeat(IMAGES // CLASSES)
    pictures = 60 * labels.view(-1, 1, 1, 1) + torch.randint(0, 120, (IMAGES, SIDE, SIDE, 3), generator=g)
    # Prompts of different lengths, padded with the end token.
    rows = [[START, 3, 4, 5], [START, 3, 6, 7, 8], [START, 3, 9]]
    ids = torch.tensor([row + [END] * (8 - len(row)) for row in rows])
    save_file({name: value.contiguous() for name, value in p.items()}, HERE / "start.safetensors")
    save_file({"pictures": pictures.to(torch.uint8), "ids": ids}, HERE / "data.safetensors")


class Clip:
    """The tiny CLIP with parameters `p` in f64; `update(name, x)` is added to the projection `name`."""

    def __init__(self):
        self.p = {name: value.double() for name, value in load_file(HERE / "start.safetensors").items()}
        data = load_file(HERE / "data.safetensors")
        self.pixels = (data["pictures"].permute(0, 3, 1, 2).double() / 255 - MEAN) / STD
        self.ids = data["ids"]
        self.labels = torch.arange(CLASSES).repeat(IMAGES // CLASSES)
        self.update = lambda name, x: 0.0

    def norm(self, x, name):
        return F.layer_norm(x, (WIDTH,), self.p[name + ".weight"], self.p[name + ".bias"])

    def linear(self, x, name):
        return F.linear(x, self.p[name + ".weight"], self.p[name + ".bias"])

    def encoder(self, x, tower, mask):
        for layer in range(LAYERS):
            at = f"{tower}.encoder.layers.{layer}."
            y = self.norm(x, at + "layer_norm1")
            project = lambda n: self.linear(y, f"{at}self_attn.{n}_proj") + self.update(f"{at}{n}", y)
            q, k, v = (project(n).unflatten(-1, (HEADS, -1)).transpose(1, 2) for n in "qkv")
            weights = (q @ k.transpose(-1, -2) / math.sqrt(WIDTH // HEADS) + mask).softmax(dim=-1)
            x = x + self.linear((weights @ v).transpose(1, 2).flatten(2), at + "self_attn.out_proj")
            y = self.linear(self.norm(x, at + "layer_norm2"), at + "mlp.fc1")
            x = x + self.linear(y * torch.sigmoid(1.702 * y), at + "mlp.fc2")
        return x

    def images(self):
        """Normalised features of the images."""
        at = "vision_model."
        x = F.conv2d(self.pixels, self.p[at + "embeddings.patch_embedding.weight"], stride=PATCH).flatten(2).transpose(1, 2)
        x = torch.cat([self.p[at + "embeddings.class_embedding"].expand(len(x), 1, WIDTH), x], dim=1)
        x = self.norm(x + self.p[at + "embeddings.position_embedding.weight"], at + "pre_layrnorm")
        x = self.encoder(x, "vision_model", 0.0)[:, 0]
        return unit(self.norm(x, at + "post_layernorm") @ self.p["visual_projection.weight"].T)

    def embedded(self):
        return self.p["text_model.embeddings.token_embedding.weight"][self.ids]

    def texts(self, tokens=None):
        """Normalised features of the prompts, or of other embeddings of their tokens."""
        x = self.embedded() if tokens is None else tokens
        count = x.shape[1]
        x = x + self.p["text_model.embeddings.position_embedding.weight"][:count]
        mask = torch.full((count, count), -torch.inf).triu(1)
        x = self.norm(self.encoder(x, "text_model", mask), "text_model.final_layer_norm")
        x = x[torch.arange(len(x)), (self.ids == END).int().argmax(dim=1)]
        return unit(x @ self.p["text_projection.weight"].T)


def unit(x):
    return x / x.norm(dim=-1, keepdim=True)


def cosine(rate, floor, step, steps):
    return floor + 0.5 * (rate - floor) * (1 + math.cos(math.pi * step / steps))


def train(optimizer, steps, rate_of, loss_of):
    """Gives the loss of every step before it is taken."""
    losses = []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate_of(step)
        loss = loss_of()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def write(name, tensors, losses):
    tensors = {key: value.detach().float().contiguous() for key, value in tensors.items()}
    save_file(tensors | {"losses": torch.tensor(losses)}, HERE / f"{name}.safetensors")
    print(name, [round(loss, 4) for loss in losses])


if __name__ == "__main__":
    make()
