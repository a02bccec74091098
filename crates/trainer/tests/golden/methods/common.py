"""Synthetic features that the references of the methods share, and what they have in common.

`python common.py` writes features.safetensors; every other script here writes the file of its name. Written with torch
2.9.0, numpy and safetensors. All in f64 on the f32 features, so that a difference is the port's rounding.
"""

import math
import pathlib

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

HERE = pathlib.Path(__file__).parent
CLASSES, WIDTH, INNER, SHOTS, VIEWS = 5, 16, 24, 4, 2
SCALE = 30.0


def make():
    g = torch.Generator().manual_seed(11)
    noise = lambda *shape: torch.randn(*shape, generator=g)
    centres = noise(CLASSES, INNER)
    common = noise(1, INNER)
    images = lambda per_class, labels: common + 0.6 * centres[labels] + 0.8 * noise(len(labels), INNER)
    labels = lambda per_class: torch.arange(CLASSES).repeat_interleave(per_class)
    projection = noise(WIDTH, INNER) / INNER**0.5  # a linear layer's weight
    train = images(SHOTS, labels(SHOTS))
    views = torch.stack([train + 0.2 * noise(*train.shape) for _ in range(VIEWS)])
    val, test = images(4, labels(4)), images(24, labels(24))
    text = (common + 0.6 * centres + 0.5 * noise(CLASSES, INNER)) @ projection.T
    tensors = {
        "cache_inner": views,
        "val_inner": val,
        "test_inner": test,
        "cache": views @ projection.T,
        "val": val @ projection.T,
        "test": test @ projection.T,
        "text": text,
        "projection": projection,
        "train_labels": labels(SHOTS).float(),
        "val_labels": labels(4).float(),
        "test_labels": labels(24).float(),
    }
    save_file({name: t.contiguous() for name, t in tensors.items()}, HERE / "features.safetensors")


class Data:
    """The features in f64; `text` is as the tower gives it, the rest is normalised by `unit` where a method wants it."""

    def __init__(self, inner=False):
        t = {name: v.double() for name, v in load_file(HERE / "features.safetensors").items()}
        suffix = "_inner" if inner else ""
        self.cache, self.val, self.test = t["cache" + suffix], t["val" + suffix], t["test" + suffix]
        self.text, self.projection = t["text"], t["projection"]
        self.labels, self.val_labels, self.test_labels = (t[k + "_labels"].long() for k in ("train", "val", "test"))

    def keys(self):
        return unit(self.cache.mean(dim=0))

    def one_hot(self):
        return F.one_hot(self.labels, CLASSES).double()


def unit(x):
    return x / x.norm(dim=-1, keepdim=True)


def accuracy(logits, labels):
    return (logits.argmax(dim=1) == labels).double().mean().item()


def first_best(candidates, score):
    """The candidate of the highest score, the first of equals."""
    return max(candidates, key=score) if candidates else None  # `max` keeps the first


def per_step(rate, step, total):
    return rate * 0.5 * (1 + math.cos(math.pi * step / total))


def per_epoch(rate, epoch, epochs):
    """Dassl's cosine with one constant warm-up epoch at 1e-5."""
    return 1e-5 if epoch == 0 else rate * 0.5 * (1 + math.cos(math.pi * (epoch - 1) / epochs))


def train(data, optimizer, epochs, rate_of, loss_of):
    """Full batches, one view an epoch in turn; gives the loss of every epoch before its step."""
    losses = []
    for epoch in range(epochs):
        for group in optimizer.param_groups:
            group["lr"] = rate_of(epoch)
        loss = loss_of(data.cache[epoch % VIEWS])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def tip_logits(features, keys, values, text, alpha, beta, seen=lambda f: f):
    f = unit(features)
    cache = torch.exp(-beta * (1 - seen(f) @ keys.T)) @ values
    return SCALE * f @ text.T + alpha * cache


def write(name, data, logits, val_logits, losses=(), **settings):
    """The test logits, the two accuracies, the losses, and the chosen settings."""
    tensors = {
        "logits": logits.detach().float(),
        "accuracy": torch.tensor([accuracy(logits, data.test_labels), accuracy(val_logits, data.val_labels)]),
        "losses": torch.tensor(losses),
    }
    tensors |= {key: torch.tensor([value]) for key, value in settings.items()}
    save_file({k: v.float().contiguous() for k, v in tensors.items()}, HERE / f"{name}.safetensors")
    print(f"{name}: test {tensors['accuracy'][0]:.4f}, val {tensors['accuracy'][1]:.4f}, {settings}")


if __name__ == "__main__":
    make()
