"""Tip-Adapter and Tip-Adapter-F (arXiv 2207.09519)."""

import itertools

import torch
import torch.nn.functional as F

from common import Data, SCALE, first_best, accuracy, per_step, tip_logits, train, unit, write

ALPHA, BETA = [0.5, 1.0, 3.0, 10.0], [1.0, 5.5, 20.0]
data = Data()
text, values = unit(data.text), data.one_hot()


def search(keys):
    score = lambda s: accuracy(tip_logits(data.val, keys, values, text, *s), data.val_labels)
    return first_best(list(itertools.product(ALPHA, BETA)), score)


def report(name, keys, losses=()):
    alpha, beta = search(keys)
    logits = lambda features: tip_logits(features, keys, values, text, alpha, beta)
    write(name, data, logits(data.test), logits(data.val), losses, alpha=alpha, beta=beta)


report("tip_adapter", data.keys())

EPOCHS = 8
keys = data.keys().requires_grad_()
optimizer = torch.optim.AdamW([keys], eps=1e-4)
loss_of = lambda view: F.cross_entropy(tip_logits(view, keys, values, text, 1.17, 1.0), data.labels)
losses = train(data, optimizer, EPOCHS, lambda epoch: per_step(1e-2, epoch, EPOCHS), loss_of)
report("tip_adapter_f", keys.detach(), losses)
