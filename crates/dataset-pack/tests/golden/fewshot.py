"""Writes `fewshot.json`: shot lists drawn by CPython itself, for the recipe in `src/fewshot.rs`.

Run with any CPython 3.8 or newer (written with CPython 3.11.7, standard library only):

    python fewshot.py > fewshot.json
"""

import json
import random


def draw_per_class(labels, shots, repeat):
    groups = {}
    for position, label in enumerate(labels):
        groups.setdefault(label, []).append(position)
    drawn = []
    for items in groups.values():
        if len(items) >= shots:
            drawn.extend(random.sample(items, shots))
        elif repeat:
            drawn.extend(random.choices(items, k=shots))
        else:
            drawn.extend(items)
    return drawn


def case(name, train, val, shots, seed, repeat):
    random.seed(seed)
    drawn_train = draw_per_class(train, shots, repeat)
    drawn_val = draw_per_class(val, min(shots, 4), False)
    return dict(name=name, shots=shots, seed=seed, repeat=repeat, train=train, val=val,
                drawn_train=drawn_train, drawn_val=drawn_val)


def labels(sizes):
    """Labels in runs, then one more image of every second class, so that groups are not contiguous."""
    return [label for label, n in sizes for _ in range(n)] + [label for label, _ in sizes[::2]]


cases = []
small = labels([(2, 3), (0, 20), (1, 21), (5, 22), (4, 90), (3, 17)])
val = labels([(1, 4), (0, 9), (2, 2), (3, 30), (5, 6), (4, 25)])
for shots in (1, 2, 4, 5, 6, 8, 16):
    for seed in (0, 1, 2, 3, 2**32 - 1, 2**32, 2**63 + 5):
        for repeat in (False, True):
            cases.append(case(f"shots{shots}-seed{seed}-repeat{repeat}", small, val, shots, seed, repeat))
print(json.dumps(cases, separators=(",", ":")))
