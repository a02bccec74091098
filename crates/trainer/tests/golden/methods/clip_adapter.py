"""CLIP-Adapter (arXiv 2110.04544): a bottleneck beside the image feature. Its first weights are in the file."""

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from common import HERE, SCALE, WIDTH, Data, accuracy, first_best, per_epoch, train, unit, write

EPOCHS, RATIOS, HIDDEN = 12, [0.2, 0.5, 0.8], WIDTH // 4
data = Data()
g = torch.Generator().manual_seed(5)
start = [torch.randn(HIDDEN, WIDTH, generator=g) * 0.3, torch.randn(WIDTH, HIDDEN, generator=g) * 0.5]


def fit(ratio):
    down, up = (w.double().requires_grad_() for w in start)

    def logits(f):
        adapted = F.relu(F.relu(f @ down.T) @ up.T)
        return SCALE * unit(ratio * adapted + (1 - ratio) * f) @ unit(data.text).T

    optimizer = torch.optim.SGD([down, up], lr=0.1, momentum=0.9)
    loss_of = lambda view: F.cross_entropy(logits(view), data.labels)
    losses = train(data, optimizer, EPOCHS, lambda epoch: per_epoch(0.05, epoch, EPOCHS), loss_of)
    return ratio, logits, losses


ratio, logits, losses = first_best(
    [fit(r) for r in RATIOS], lambda fitted: accuracy(fitted[1](data.val), data.val_labels)
)
write("clip_adapter", data, logits(data.test), logits(data.val), losses, ratio=ratio)
path = HERE / "clip_adapter.safetensors"
save_file(load_file(path) | {"down": start[0], "up": start[1]}, path)
