"""Two steps of FLIER's training in PyTorch, one real and one generated, timed whenever a line arrives.

Usage: time_steps.py vit|rn50     (torch 2.9.0, open_clip 3.3.0)

The protocol is in `passes.py` of clip-model, the formulas are those of `tests/golden/trajectory.py`: the image tower of
open_clip on random weights, mean pooling, a linear classifier, the latent encoder with its own; label smoothing, AdamW with
layer-wise decay, the moving average of the image branch. Batch norms keep their statistics. The number of threads is OMP_NUM_THREADS.
"""

import os
import re
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

sys.path.append(str(Path(__file__).parents[3] / "clip-model/tests/scale"))
from passes import serve  # noqa: E402

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
BATCH, CLASSES, FACTOR, SMOOTHING, EMA = 16, 100, 0.2, 0.1, 0.9998
RATE, DECAY, LAYER_DECAY = 1e-4, 0.05, 0.7


class ImageBranch(nn.Module):
    def __init__(self, tower, width):
        super().__init__()
        self.tower, self.head = tower, nn.Linear(width, CLASSES)

    def forward(self, pixels):
        if hasattr(self.tower, "layer4"):
            x = self.tower.stem(pixels)
            for layer in (self.tower.layer1, self.tower.layer2, self.tower.layer3, self.tower.layer4):
                x = layer(x)
            return self.head(x.mean(dim=(2, 3)))
        _, tokens = self.tower(pixels)
        return self.head(tokens.mean(dim=1))


def latent_branch():
    convs = [nn.Conv2d(4, 10, 1), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(10, 3, 1), nn.MaxPool2d(2), nn.ReLU()]
    return nn.Sequential(*convs, nn.Flatten(), nn.Linear(768, CLASSES))


def layer(name, highest):
    """Layer of a parameter of the image branch: stem, stages or blocks, and the classifier with the last norm."""
    if name.startswith("head") or "ln_post" in name:
        return highest
    stage = re.search(r"layer(\d)", name)
    block = re.search(r"resblocks\.(\d+)", name)
    return int(stage[1]) if stage else int(block[1]) + 1 if block else 0


def build(case):
    import open_clip

    is_resnet = case == "rn50"
    tower = open_clip.create_model("RN50-quickgelu" if is_resnet else "ViT-B-16-quickgelu").visual
    if is_resnet:
        del tower.attnpool
    else:
        tower.output_tokens = True
        tower.proj = None
    tower.conv1.weight.requires_grad_(False)
    image, latent = ImageBranch(tower, 2048 if is_resnet else 768).eval(), latent_branch()
    highest = 5 if is_resnet else 13
    groups = [{"params": list(latent.parameters()), "weight_decay": DECAY}]
    for name, parameter in image.named_parameters():
        if parameter.requires_grad:
            is_decayed = parameter.dim() > 1 and "embedding" not in name
            rate = RATE * LAYER_DECAY ** (highest - layer(name, highest))
            groups.append({"params": [parameter], "weight_decay": DECAY if is_decayed else 0.0, "lr": rate})
    return image, latent, torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.999), eps=1e-8)


def main():
    torch.manual_seed(0)
    image, latent, optimizer = build(sys.argv[1])
    average = {name: p.detach().clone() for name, p in image.named_parameters() if p.requires_grad}
    real, generated = torch.randn(BATCH, 3, 224, 224), torch.randn(BATCH, 3, 224, 224)
    latents, labels = torch.randn(BATCH, 4, 64, 64), torch.arange(BATCH)
    cross_entropy = lambda logits: F.cross_entropy(logits, labels, label_smoothing=SMOOTHING)
    generated_loss = lambda: (1 - FACTOR) * cross_entropy(image(generated)) + FACTOR * cross_entropy(latent(latents))

    def run():
        for loss_of in (lambda: cross_entropy(image(real)), generated_loss):
            loss = loss_of()
            loss.item()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                for name, parameter in image.named_parameters():
                    if parameter.requires_grad:
                        average[name].mul_(EMA).add_(parameter, alpha=1 - EMA)

    serve(2, run)


main()
