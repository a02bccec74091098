"""CaFo's cache (arXiv 2303.02151) without its DINO half: Tip-Adapter-F on real and generated images; the latter are in the file."""

import itertools

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from common import CLASSES, HERE, VIEWS, WIDTH, Data, accuracy, first_best, per_step, tip_logits, train, unit, write

ALPHA, BETA, EPOCHS, PER_CLASS = [0.5, 1.0, 3.0, 10.0], [1.0, 5.5, 20.0], 8, 3
data = Data()
g = torch.Generator().manual_seed(17)
labels = torch.arange(CLASSES).repeat(PER_CLASS)
# Near the text features and farther from the photographs, as generated images are.
centres = data.text.float()[labels] + torch.randn(len(labels), WIDTH, generator=g)
generated = torch.stack([centres + 0.2 * torch.randn(*centres.shape, generator=g) for _ in range(VIEWS)])
data.cache = torch.cat([data.cache, generated.double()], dim=1)
data.labels = torch.cat([data.labels, labels])
text, values = unit(data.text), data.one_hot()
keys = data.keys().requires_grad_()
optimizer = torch.optim.AdamW([keys], eps=1e-4)
loss_of = lambda view: F.cross_entropy(tip_logits(view, keys, values, text, 1.17, 1.0), data.labels)
losses = train(data, optimizer, EPOCHS, lambda epoch: per_step(1e-2, epoch, EPOCHS), loss_of)
logits_of = lambda x, alpha, beta: tip_logits(x, keys.detach(), values, text, alpha, beta)
score = lambda s: accuracy(logits_of(data.val, *s), data.val_labels)
alpha, beta = first_best(list(itertools.product(ALPHA, BETA)), score)
write("cafo", data, logits_of(data.test, alpha, beta), logits_of(data.val, alpha, beta), losses, alpha=alpha, beta=beta)
path = HERE / "cafo.safetensors"
save_file(load_file(path) | {"generated": generated.contiguous(), "generated_labels": labels.float()}, path)
