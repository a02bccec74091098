"""LP++ (arXiv 2404.02285): a linear probe plus text logits times a weight per class, with its own step sizes."""

import torch
import torch.nn.functional as F

from common import CLASSES, Data, accuracy, unit, write

EPOCHS = 60
data = Data()
features, text, n = unit(data.cache[0]), unit(data.text), len(data.labels)
cosines = features @ text.T
probe_rate = 4 * n / torch.linalg.eigvalsh(features.T @ features).max().item()
blending_rate = n / (4 * cosines.pow(2).sum(dim=0).max().item())
mean_cosine = torch.stack([cosines[data.labels == c, c].mean() for c in range(CLASSES)]).mean()

weight = (data.one_hot().T @ features).requires_grad_()
bias = torch.zeros(CLASSES, dtype=torch.float64, requires_grad=True)
blending = (250 * mean_cosine * torch.ones(CLASSES, dtype=torch.float64)).requires_grad_()
logits = lambda f: unit(f) @ weight.T + bias + blending * (unit(f) @ text.T)
optimizer = torch.optim.SGD([weight, bias], lr=probe_rate, momentum=0.9)
losses, best = [], (-1.0, None, None)
for epoch in range(1, EPOCHS + 1):
    loss = F.cross_entropy(logits(data.cache[0]), data.labels)
    optimizer.zero_grad()
    blending.grad = None
    loss.backward()
    optimizer.step()
    if epoch % 10 == 0:
        blending.data -= blending_rate * blending.grad
    losses.append(loss.item())
    with torch.no_grad():
        val_logits = logits(data.val)
        score = accuracy(val_logits, data.val_labels)
        if score >= best[0]:
            best = (score, logits(data.test), val_logits)
write("lp_plus_plus", data, best[1], best[2], losses)
