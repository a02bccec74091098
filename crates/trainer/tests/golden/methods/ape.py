"""APE and APE-T (arXiv 2304.01195): a cache on refined channels, without and with training."""

import itertools

import torch
import torch.nn.functional as F

from common import CLASSES, SCALE, SHOTS, Data, accuracy, first_best, per_step, tip_logits, train, unit, write

ALPHA, BETA, GAMMA = [0.5, 1.0, 3.0, 10.0], [1.0, 5.5], [0.3, 0.1, 0.6]
data = Data()
text, keys, values = unit(data.text), data.keys(), data.one_hot()


def channels(samples, count, weights):
    """`samples` [N, S, P]: the mean product over pairs of different classes, by the double loop of the definition."""
    total, pairs = torch.zeros(samples.shape[-1], dtype=torch.float64), 0
    for i, j in itertools.product(range(CLASSES), repeat=2):
        if i != j:
            total += torch.einsum("mp,np->p", samples[i], samples[j])
            pairs += samples.shape[1] ** 2
    criterion = -weights[0] * total / pairs + weights[1] * text.var(dim=0)
    return criterion.topk(count).indices.sort().values


both = torch.cat([text[:, None], keys.reshape(CLASSES, SHOTS, -1)], dim=1)
seen_channels = channels(both, 10, (0.7, 0.3))
seen = lambda f: unit(f[:, seen_channels])
small_keys, small_text = seen(keys), seen(text)
probabilities = (small_keys @ small_text.T).softmax(dim=1)
divergence = (values * torch.log2((values + 1e-6) / (probabilities + 1e-6))).sum(dim=1, keepdim=True)


def ape_logits(f, alpha, beta, gamma):
    return tip_logits(f, small_keys, values * (gamma * divergence).exp(), text, alpha, beta, seen)


best = first_best(
    list(itertools.product(ALPHA, BETA, GAMMA)), lambda s: accuracy(ape_logits(data.val, *s), data.val_labels)
)
alpha, beta, gamma = best
write("ape", data, ape_logits(data.test, *best), ape_logits(data.val, *best), alpha=alpha, beta=beta, gamma=gamma)

EPOCHS, COUNT = 8, 12
indices = channels(text[:, None], COUNT, (0.2, 0.8))
residual = torch.zeros(CLASSES, COUNT, dtype=torch.float64, requires_grad=True)
value_weights = torch.ones(len(keys), 1, dtype=torch.float64, requires_grad=True)


def trained_logits(f, alpha, beta):
    new_text, new_keys = text.clone(), keys.clone()
    new_text[:, indices] = text[:, indices] + residual
    new_keys[:, indices] = keys[:, indices] + residual[data.labels]
    return tip_logits(f, new_keys, values * value_weights, new_text, alpha, beta)


optimizer = torch.optim.AdamW([residual, value_weights], eps=1e-3, weight_decay=0.1)
loss_of = lambda view: F.cross_entropy(trained_logits(view, 2.0, 1.0), data.labels)
losses = train(data, optimizer, EPOCHS, lambda epoch: per_step(1e-2, epoch, EPOCHS), loss_of)
with torch.no_grad():
    alpha, beta = first_best(
        list(itertools.product(ALPHA, BETA)), lambda s: accuracy(trained_logits(data.val, *s), data.val_labels)
    )
    logits = [trained_logits(f, alpha, beta) for f in (data.test, data.val)]
write("ape_t", data, *logits, losses, alpha=alpha, beta=beta)
