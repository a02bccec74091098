"""2SFS (arXiv 2503.11609): ten steps, the first six of them on the layer norms of both towers, the rest on a classifier that
starts at the text features."""

import torch
import torch.nn.functional as F

from common import SCALE, Clip, cosine, train, unit, write

STEPS, FIRST, RATE, DECAY = 10, 6, 5e-3, 0.01
clip = Clip()
norms = [name for name in clip.p if "layer_norm" in name or "layernorm" in name or "layrnorm" in name]
for name in norms:
    clip.p[name].requires_grad_()
adamw = lambda parameters: torch.optim.AdamW(parameters, lr=RATE, weight_decay=DECAY)
rate_of = lambda steps: lambda step: cosine(RATE, 1e-6, step, steps)
loss_of = lambda texts: F.cross_entropy(SCALE * clip.images() @ texts().T, clip.labels)
losses = train(adamw([clip.p[name] for name in norms]), FIRST, rate_of(FIRST), lambda: loss_of(clip.texts))
for name in norms:
    clip.p[name].requires_grad_(False)
classifier = clip.texts().requires_grad_()
second = STEPS - FIRST
losses += train(adamw([classifier]), second, rate_of(second), lambda: loss_of(lambda: unit(classifier)))
write("two_stage", {"logits": SCALE * clip.images() @ unit(classifier).T}, losses)
