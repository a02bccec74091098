"""CLAP (arXiv 2312.12730): prototypes from the text features, held near them by a weight per class."""

import torch
import torch.nn.functional as F

from common import CLASSES, SCALE, VIEWS, Data, per_epoch, train, unit, write

EPOCHS = 12
data = Data()
cosine = lambda f, vectors: SCALE * unit(f) @ unit(vectors).T
probabilities = cosine(data.cache.flatten(0, 1), data.text).softmax(dim=1)
labels = data.labels.repeat(VIEWS)
multipliers = torch.stack([probabilities[labels == c, c].mean() for c in range(CLASSES)])
vectors = data.text.clone().requires_grad_()


def loss_of(view):
    distance = (vectors - data.text).pow(2).sum(dim=1)
    return F.cross_entropy(cosine(view, vectors), data.labels) + (multipliers * distance).mean()


optimizer = torch.optim.SGD([vectors], lr=0.1, momentum=0.9)
losses = train(data, optimizer, EPOCHS, lambda epoch: per_epoch(0.1, epoch, EPOCHS), loss_of)
write("clap", data, cosine(data.test, vectors), cosine(data.val, vectors), losses)
