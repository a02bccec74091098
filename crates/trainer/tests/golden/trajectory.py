"""Twenty steps of FLIER (preset `paper`) in PyTorch: loss of every step, last weights, moving average.

A tiny ViT; both branches trained; a real pass and a generated pass in each of ten epochs, each one full batch, so that the
order of the images does not matter; and ten steps of the schedule `mixed`, each on all images of both. AdamW with layer-wise decay, warm-up and cosine, label smoothing, patch convolution
frozen, no augmentation. Written with torch 2.9.0. Run in this folder: python trajectory.py
"""

import math

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

torch.manual_seed(23)
SIDE, PATCH, WIDTH, MLP, BLOCKS, HEADS, CLASSES = 16, 8, 16, 32, 2, 2, 3
EPOCHS, WARMUP, RATE, FLOOR, DECAY, LAYER_DECAY = 10, 3, 4e-3, 1e-5, 0.05, 0.7
SMOOTHING, FACTOR, EMA = 0.1, 0.3, 0.9
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)

labels = torch.arange(CLASSES).repeat(2)
pictures = lambda: (60 * labels.view(-1, 1, 1, 1) + torch.randint(0, 120, (6, SIDE, SIDE, 3))).to(torch.uint8)
real, generated = pictures(), pictures()
latents = torch.randn(6, 4, 8, 8) + 0.3 * labels.view(-1, 1, 1, 1)

p = {}
norm = lambda *shape, std=0.3: torch.randn(*shape) * std
v = "vision_model."
p[v + "embeddings.class_embedding"] = norm(WIDTH)
p[v + "embeddings.patch_embedding.weight"] = norm(WIDTH, 3, PATCH, PATCH, std=0.05)
p[v + "embeddings.position_embedding.weight"] = norm((SIDE // PATCH) ** 2 + 1, WIDTH)
norms = ["pre_layrnorm", "post_layernorm"]
for block in range(BLOCKS):
    b = f"{v}encoder.layers.{block}."
    norms += [f"encoder.layers.{block}.layer_norm{i}" for i in (1, 2)]
    layers = [(f"self_attn.{n}_proj", WIDTH, WIDTH) for n in ("q", "k", "v", "out")]
    for name, inputs, outputs in layers + [("mlp.fc1", WIDTH, MLP), ("mlp.fc2", MLP, WIDTH)]:
        p[b + name + ".weight"], p[b + name + ".bias"] = norm(outputs, inputs), norm(outputs, std=0.05)
for name in norms:
    p[v + name + ".weight"], p[v + name + ".bias"] = 1 + norm(WIDTH, std=0.1), norm(WIDTH, std=0.1)
p["head.weight"], p["head.bias"] = norm(CLASSES, WIDTH, std=0.02), norm(CLASSES, std=0.01)
p["latent_encoder.conv1.weight"], p["latent_encoder.conv1.bias"] = norm(10, 4, 1, 1), norm(10)
p["latent_encoder.conv2.weight"], p["latent_encoder.conv2.bias"] = norm(3, 10, 1, 1), norm(3)
p["latent_head.weight"], p["latent_head.bias"] = norm(CLASSES, 12, std=0.02), norm(CLASSES, std=0.01)
start = {name: value.clone() for name, value in p.items()}
frozen = v + "embeddings.patch_embedding.weight"


def image_logits(pixels):
    layer_norm = lambda x, name: F.layer_norm(x, (WIDTH,), p[v + name + ".weight"], p[v + name + ".bias"])
    linear = lambda x, name: F.linear(x, p[name + ".weight"], p[name + ".bias"])
    x = F.conv2d(pixels, p[frozen], stride=PATCH).flatten(2).transpose(1, 2)
    x = torch.cat([p[v + "embeddings.class_embedding"].expand(len(x), 1, WIDTH), x], dim=1)
    x = layer_norm(x + p[v + "embeddings.position_embedding.weight"], "pre_layrnorm")
    for block in range(BLOCKS):
        b = f"encoder.layers.{block}."
        y = layer_norm(x, b + "layer_norm1")
        q, k, w = (
            linear(y, f"{v}{b}self_attn.{n}_proj").unflatten(-1, (HEADS, -1)).transpose(1, 2) for n in "qkv"
        )
        attention = (q @ k.transpose(-1, -2) / math.sqrt(WIDTH // HEADS)).softmax(dim=-1) @ w
        x = x + linear(attention.transpose(1, 2).flatten(2), f"{v}{b}self_attn.out_proj")
        y = linear(layer_norm(x, b + "layer_norm2"), f"{v}{b}mlp.fc1")
        x = x + linear(y * torch.sigmoid(1.702 * y), f"{v}{b}mlp.fc2")
    return linear(layer_norm(x[:, 1:], "post_layernorm").mean(dim=1), "head")


def latent_logits(z):
    for conv in ("conv1", "conv2"):
        name = f"latent_encoder.{conv}"
        z = F.relu(F.max_pool2d(F.conv2d(z, p[name + ".weight"], p[name + ".bias"]), 2))
    return F.linear(z.flatten(1), p["latent_head.weight"], p["latent_head.bias"])


def layer(name):
    if "embeddings" in name or "pre_layrnorm" in name:
        return 0
    return int(name.split("layers.")[1].split(".")[0]) + 1 if "encoder.layers" in name else BLOCKS + 1


def rate(epoch):
    if epoch < WARMUP:
        return RATE * epoch / (WARMUP - 1)
    return FLOOR + 0.5 * (RATE - FLOOR) * (1 + math.cos(math.pi * (epoch - WARMUP) / (EPOCHS - WARMUP)))


pixels = lambda pictures: (pictures.permute(0, 3, 1, 2).double() / 255 - MEAN) / STD
cross_entropy = lambda logits: F.cross_entropy(logits, labels, label_smoothing=SMOOTHING)


def real_loss():
    return cross_entropy(image_logits(pixels(real)))


def generated_loss():
    image_loss, latent_loss = cross_entropy(image_logits(pixels(generated))), cross_entropy(latent_logits(latents.double()))
    return (1 - FACTOR) * image_loss + FACTOR * latent_loss


def mixed_loss():  # the mean over twelve images, six of each kind
    return (real_loss() + generated_loss()) / 2


def train(passes):
    """Losses, last weights and their moving average of ten epochs of these passes from the start."""
    global p
    p = {name: value.double().requires_grad_() for name, value in start.items()}
    p[frozen].requires_grad_(False)
    groups = []
    for name, value in p.items():
        if value.requires_grad:
            decayed = value.dim() > 1 and "position_embedding" not in name
            scale = LAYER_DECAY ** (BLOCKS + 1 - layer(name))
            groups.append({"params": [value], "weight_decay": DECAY if decayed else 0.0, "scale": scale})
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.999), eps=1e-8)
    average = {n: w.detach().clone() for n, w in p.items() if w.requires_grad and not n.startswith("latent")}
    losses = []
    for epoch in range(EPOCHS):
        for loss_of in passes:
            loss = loss_of()
            losses.append(loss.item())
            for group in optimizer.param_groups:
                group["lr"] = rate(epoch) * group["scale"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            for name, value in average.items():
                value.mul_(EMA).add_(p[name].detach(), alpha=1 - EMA)
    print([round(loss, 4) for loss in losses])
    return losses, p, average


losses, last, average = train([real_loss, generated_loss])
mixed_losses, mixed_last, _ = train([mixed_loss])
save_file(
    {"real": real, "generated": generated, "latents": latents}
    | {"losses": torch.tensor(losses), "mixed_losses": torch.tensor(mixed_losses)}
    | {f"final/{name}": value.detach().float().contiguous() for name, value in last.items()}
    | {f"average/{name}": value.float().contiguous() for name, value in average.items()}
    | {f"mixed/{name}": value.detach().float().contiguous() for name, value in mixed_last.items()},
    "trajectory.safetensors",
)
save_file({name: value.contiguous() for name, value in start.items()}, "trajectory_start.safetensors")
