"""Writes statistics.json: what the reference implementations give for small inputs.

Figures of predictions (top-5, NLL, ECE over 15 bins of equal width as in Guo et al. 2017) are written out in numpy;
McNemar's exact test and Holm's correction are those of statsmodels; Student's t and the binomial are those of scipy.

Run with Python 3, numpy 2.4.6, scipy 1.17.1, statsmodels 0.15.0: python statistics.py > statistics.json
"""

import json

import numpy as np
from scipy import stats
from scipy.special import log_softmax
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests


def expected_calibration_error(logits, labels, num_bins=15):
    probabilities = np.exp(log_softmax(logits.astype(np.float64), axis=1))
    confidence, predicted = probabilities.max(axis=1), probabilities.argmax(axis=1)
    edges = np.linspace(0.0, 1.0, num_bins + 1)
    error = 0.0
    for low, high in zip(edges[:-1], edges[1:]):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            gap = abs((predicted == labels)[inside].mean() - confidence[inside].mean())
            error += inside.mean() * gap
    return error


def predictions():
    generator = np.random.default_rng(3)
    cases = []
    for images, classes, scale in [(40, 3, 1.0), (60, 8, 3.0), (25, 12, 20.0)]:
        logits = (scale * generator.standard_normal((images, classes))).astype(np.float32)
        labels = generator.integers(0, classes, images)
        logits[np.arange(images), labels] += np.float32(0.5 * scale)
        # A stable sort of the negated logits puts the first of equals first.
        order = np.argsort(-logits, axis=1, kind="stable")
        nll = -log_softmax(logits.astype(np.float64), axis=1)[np.arange(images), labels].mean()
        cases.append({
            "classes": classes,
            "labels": labels.tolist(),
            "logits": logits.tolist(),
            "top1": float((order[:, 0] == labels).mean()),
            "top5": float((order[:, :5] == labels[:, None]).any(axis=1).mean()),
            "nll": float(nll),
            "ece": float(expected_calibration_error(logits, labels)),
        })
    return cases


def discordant():
    pairs = [(0, 0), (0, 1), (1, 1), (5, 0), (3, 9), (9, 3), (10, 10), (40, 17), (120, 171), (1500, 1390), (0, 900)]
    tables = [[[50, better], [worse, 50]] for better, worse in pairs]
    return [{"better": b, "worse": c, "p": float(mcnemar(t, exact=True).pvalue)} for (b, c), t in zip(pairs, tables)]


def families():
    lists = [
        [0.01, 0.04, 0.03, 0.005],
        [0.5],
        [0.04, 0.04, 0.9, 0.02, 0.02, 1.0],
        [2e-4, 0.011, 0.012, 0.2, 0.6, 0.0009, 0.33],
    ]
    return [{"p": p, "adjusted": multipletests(p, method="holm")[1].tolist()} for p in lists]


print(json.dumps({
    "predictions": predictions(),
    "mcnemar": discordant(),
    "holm": families(),
    "student_t": [{"degrees": d, "factor": float(stats.t.ppf(0.975, d))} for d in [1, 2, 4, 9, 30]],
}))
