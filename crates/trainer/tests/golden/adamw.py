"""Three steps of PyTorch's AdamW with a learning-rate factor and a weight decay per parameter, and an EMA.

Written with torch 2.9.0 and safetensors 0.8.0. Run in this folder: python adamw.py
"""

import torch
from safetensors.torch import save_file

torch.manual_seed(11)
RATE, DECAY, EMA, STEPS = 3e-3, 0.05, 0.9, 3
# name, shape, factor on the learning rate, weight decay (0 for vectors): 0.7 ** (3 - layer)
PARAMETERS = [
    ("vision.encoder.layers.0.weight", (6, 5), 0.7**2, DECAY),
    ("vision.encoder.layers.0.bias", (5,), 0.7**2, 0.0),
    ("vision.encoder.layers.1.weight", (5, 5), 0.7**1, DECAY),
    ("vision.encoder.layers.1.bias", (5,), 0.7**1, 0.0),
    ("head.weight", (5, 3), 1.0, DECAY),
    ("head.bias", (3,), 1.0, 0.0),
]

out, groups, parameters = {}, [], {}
for name, shape, scale, decay in PARAMETERS:
    parameter = torch.nn.Parameter(torch.randn(shape))
    parameters[name] = parameter
    out[f"start.{name}"] = parameter.detach().clone()
    groups.append({"params": [parameter], "lr": RATE * scale, "weight_decay": decay})
averages = {name: p.detach().clone() for name, p in parameters.items()}
optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8, foreach=False)
for step in range(STEPS):
    for name, parameter in parameters.items():
        # The second layer's bias gets its first gradient in the second step.
        if step == 0 and name == "vision.encoder.layers.1.bias":
            parameter.grad = None
            continue
        parameter.grad = torch.randn(parameter.shape) * 10.0 ** (step - 2)
        out[f"gradient.{step}.{name}"] = parameter.grad.clone()
    optimizer.step()
    for name, parameter in parameters.items():
        averages[name].mul_(EMA).add_(parameter.detach(), alpha=1 - EMA)
        out[f"after.{step}.{name}"] = parameter.detach().clone()
for name, average in averages.items():
    out[f"average.{name}"] = average
save_file(out, "adamw.safetensors")
