"""ProLIP (arXiv 2410.05270): the visual projection trained alone, held near its first value."""

import torch
import torch.nn.functional as F

from common import SCALE, SHOTS, Data, accuracy, first_best, per_step, train, unit, write

EPOCHS, RATES = 20, [1e-3, 1e-2]
data = Data(inner=True)


def fit(rate):
    projection = data.projection.clone().requires_grad_()
    logits = lambda f: SCALE * unit(f @ projection.T) @ unit(data.text).T

    def loss_of(view):
        return F.cross_entropy(logits(view), data.labels) + (projection - data.projection).pow(2).sum() / SHOTS

    optimizer = torch.optim.Adam([projection], eps=1e-4)
    losses = train(data, optimizer, EPOCHS, lambda epoch: per_step(rate, epoch, EPOCHS), loss_of)
    return rate, logits, losses


rate, logits, losses = first_best(
    [fit(r) for r in RATES], lambda fitted: accuracy(fitted[1](data.val), data.val_labels)
)
write("prolip", data, logits(data.test), logits(data.val), losses, learning_rate=rate)
