"""Multinomial logistic regression in scikit-learn's form, solved to high precision in f64 with PyTorch.

Minimises 0.5 * ||W||^2 + C * sum of cross entropies; the bias is not penalised.
Written with torch 2.9.0 and safetensors 0.8.0. Run in this folder: python logistic_regression.py
"""

import torch
from safetensors.torch import save_file

torch.manual_seed(5)
SAMPLES, WIDTH, CLASSES = 40, 6, 4
features = torch.nn.functional.normalize(torch.randn(SAMPLES, WIDTH), dim=1)
labels = torch.randint(0, CLASSES, (SAMPLES,))
out = {"features": features, "labels": labels.to(torch.float32)}
for c in (0.1, 10.0):
    weight = torch.zeros(CLASSES, WIDTH, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(CLASSES, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=5000, tolerance_grad=1e-12, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        logits = features.double() @ weight.T + bias
        loss = 0.5 * (weight**2).sum() + c * torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
        loss.backward()
        return loss

    optimizer.step(closure)
    assert weight.grad.abs().max() < 1e-6, weight.grad.abs().max()
    out[f"weight.{c}"] = weight.detach().to(torch.float32)
    out[f"bias.{c}"] = bias.detach().to(torch.float32)
save_file(out, "logistic_regression.safetensors")
