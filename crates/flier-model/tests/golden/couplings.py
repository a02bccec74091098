"""The latent loss of every coupling against PyTorch, with its gradients at the image features and in the classifiers.

Written with torch 2.9.0 and safetensors 0.8.0. Run in this folder: python couplings.py
"""

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

g = torch.Generator().manual_seed(19)
noise = lambda *shape, std=0.3: torch.randn(*shape, generator=g) * std
BATCH, CLASSES, WIDTH, LATENT, SMOOTHING = 4, 5, 24, 48, 0.1
start = {
    "conv1.weight": noise(10, 4, 1, 1),
    "conv1.bias": noise(10),
    "conv2.weight": noise(3, 10, 1, 1),
    "conv2.bias": noise(3),
    "head.weight": noise(CLASSES, WIDTH),
    "head.bias": noise(CLASSES),
    "latent_head.weight": noise(CLASSES, LATENT),
    "latent_head.bias": noise(CLASSES),
    "latent_projection.weight": noise(WIDTH, LATENT),
    "latents": noise(BATCH, 4, 16, 16, std=1.0),
    "image_features": noise(BATCH, WIDTH, std=1.0),
}
labels = torch.tensor([0, 4, 2, 2])
tensors = dict(start)
for coupling in ("independent", "shared-head", "logit-sum", "feature-add", "align-loss"):
    w = {name: value.double().requires_grad_() for name, value in start.items()}
    z = w["latents"]
    for conv in ("conv1", "conv2"):
        z = F.relu(F.max_pool2d(F.conv2d(z, w[conv + ".weight"], w[conv + ".bias"]), 2))
    z, image = z.flatten(1), w["image_features"]
    head = lambda x, name: F.linear(x, w[name + ".weight"], w[name + ".bias"])
    cross_entropy = lambda logits: F.cross_entropy(logits, labels, label_smoothing=SMOOTHING)
    projected = z @ w["latent_projection.weight"].T
    loss = {
        "independent": lambda: cross_entropy(head(z, "latent_head")),
        "shared-head": lambda: cross_entropy(head(projected, "head")),
        "logit-sum": lambda: cross_entropy(head(image, "head") + head(z, "latent_head")),
        "feature-add": lambda: cross_entropy(head(image + projected, "head")),
        "align-loss": lambda: cross_entropy(head(z, "latent_head")) + 1 - F.cosine_similarity(image, projected).mean(),
    }[coupling]()
    loss.backward()
    tensors[f"{coupling}/loss"] = loss.detach().float().view(1)
    for name in ("image_features", "head.weight", "latent_projection.weight", "conv1.weight"):
        gradient = w[name].grad
        tensors[f"{coupling}/{name}"] = torch.zeros_like(start[name]) if gradient is None else gradient.float()
    print(coupling, loss.item())
save_file({name: value.contiguous() for name, value in tensors.items()}, "couplings.safetensors")
