"""Latent encoder and FLIER loss against PyTorch: forward, loss and gradients on a small random case.

Written with torch 2.9.0 and safetensors 0.8.0. Run in this folder: python flier_loss.py
"""

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

torch.manual_seed(7)
BATCH, CLASSES, FACTOR, SMOOTHING = 5, 6, 0.3, 0.1

conv1 = torch.nn.Conv2d(4, 10, 1)
conv2 = torch.nn.Conv2d(10, 3, 1)
head = torch.nn.Linear(3 * 4 * 2, CLASSES)
latents = torch.randn(BATCH, 4, 16, 8)
image_logits = torch.randn(BATCH, CLASSES, requires_grad=True)
labels = torch.tensor([0, 5, 2, 2, 3])


def cross_entropy(logits):
    log_p = F.log_softmax(logits, dim=1)
    nll = -log_p.gather(1, labels[:, None]).squeeze(1)
    smooth = -log_p.mean(dim=1)
    return ((1 - SMOOTHING) * nll + SMOOTHING * smooth).mean()


x = F.relu(F.max_pool2d(conv1(latents), 2))
x = F.relu(F.max_pool2d(conv2(x), 2))
features = x.flatten(1)
latent_logits = head(features)
loss = (1 - FACTOR) * cross_entropy(image_logits) + FACTOR * cross_entropy(latent_logits)
loss.backward()

save_file(
    {
        "conv1.weight": conv1.weight.detach(),
        "conv1.bias": conv1.bias.detach(),
        "conv2.weight": conv2.weight.detach(),
        "conv2.bias": conv2.bias.detach(),
        "head.weight": head.weight.detach(),
        "head.bias": head.bias.detach(),
        "latents": latents,
        "image_logits": image_logits.detach(),
        "labels": labels.to(torch.float32),
        "features": features.detach(),
        "latent_logits": latent_logits.detach(),
        "loss": loss.detach().reshape(1),
        "grad.image_logits": image_logits.grad,
        "grad.conv1.weight": conv1.weight.grad,
        "grad.conv1.bias": conv1.bias.grad,
        "grad.conv2.weight": conv2.weight.grad,
        "grad.conv2.bias": conv2.bias.grad,
        "grad.head.weight": head.weight.grad,
        "grad.head.bias": head.bias.grad,
    },
    "flier_loss.safetensors",
)
