"""CLIP-LoRA (arXiv 2405.18541): low-rank updates of query, key and value in both towers; their first weights are in the file.

Ten steps without dropout, then the loss and its gradients at the start with elements hidden as the file's masks say.
"""

import math

import torch
import torch.nn.functional as F

from common import CLASSES, IMAGES, LAYERS, SCALE, WIDTH, Clip, cosine, train, write

RANK, ALPHA, DROPOUT, STEPS, RATE, DECAY = 2, 1.0, 0.25, 10, 5e-3, 0.01
g = torch.Generator().manual_seed(8)
clip = Clip()
names = [f"{tower}.encoder.layers.{i}.{n}" for tower in ("text_model", "vision_model") for i in range(LAYERS) for n in "qkv"]
start = {}
for name in names:
    start[name + ".down"] = torch.randn(RANK, WIDTH, generator=g) * 0.3
    start[name + ".up"] = torch.randn(WIDTH, RANK, generator=g) * 0.1
shape = lambda name: (CLASSES, 8, WIDTH) if name.startswith("text") else (IMAGES, 5, WIDTH)
masks = {name: torch.rand(*shape(name), generator=g) < DROPOUT for name in names}
w = {name: value.double().requires_grad_() for name, value in start.items()}
logits = lambda: SCALE * clip.images() @ clip.texts().T
loss_of = lambda: F.cross_entropy(logits(), clip.labels)
change = lambda name: ALPHA / math.sqrt(RANK) * w[name + ".up"] @ w[name + ".down"]

clip.update = lambda name, x: x.masked_fill(masks[name], 0.0) / (1 - DROPOUT) @ change(name).T
masked_loss = loss_of()
gradients = torch.autograd.grad(masked_loss, list(w.values()))

clip.update = lambda name, x: x @ change(name).T
optimizer = torch.optim.AdamW(w.values(), lr=RATE, weight_decay=DECAY)
losses = train(optimizer, STEPS, lambda step: cosine(RATE, 1e-6, step, STEPS), loss_of)
tensors = {"logits": logits(), "masked_loss": masked_loss.view(1)}
tensors |= {f"start/{name}": value for name, value in start.items()}
tensors |= {f"mask/{name}": value for name, value in masks.items()}
tensors |= {f"gradient/{name}": value for name, value in zip(w, gradients)}
write("clip_lora", tensors, losses)
