"""Gaussian discriminant analysis (arXiv 2402.04087): logits plus alpha times those of a Gaussian with shared covariance."""

import torch

from common import CLASSES, SCALE, VIEWS, Data, accuracy, first_best, unit, write

ALPHA = [1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0]
data = Data()
features, labels = unit(data.cache).flatten(0, 1), data.labels.repeat(VIEWS)
means = torch.stack([features[labels == c].mean(dim=0) for c in range(CLASSES)])
centred = features - means[labels]
n, d = centred.shape
covariance = centred.T @ centred / (n - 1)
precision = d * torch.linalg.pinv((n - 1) * covariance + covariance.trace() * torch.eye(d, dtype=torch.float64))
weight = means @ precision
bias = -torch.log(torch.tensor(float(CLASSES))) - 0.5 * (weight * means).sum(dim=1)
logits = lambda f, alpha: SCALE * unit(f) @ unit(data.text).T + alpha * (unit(f) @ weight.T + bias)
alpha = first_best(ALPHA, lambda a: accuracy(logits(data.val, a), data.val_labels))
write("gda", data, logits(data.test, alpha), logits(data.val, alpha), alpha=alpha)
