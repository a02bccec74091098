"""Time of the baselines on synthetic features of ImageNet's size, the way the authors' scripts do it in PyTorch.

`examples/time_baselines.rs` is the same in Rust. Run by hand on one idle machine:

    python baselines.py

A search over alpha and beta computes the product with the one-hot values for every pair, as Tip-Adapter's and APE's scripts
do. What grows evenly is measured in part and multiplied: epochs, pairs of a search (`--grid-points`), test images and seeds.
Every line gives the measured time, the processor time of the full size, and the most memory. Needs torch, on Linux, and
scikit-learn for the linear probe.
"""

import argparse
import pathlib
import time

import torch
import torch.nn.functional as F

parser = argparse.ArgumentParser()
parser.add_argument("--shots", default="1,2,4,8,16")
parser.add_argument("--seeds", type=int, default=1)
parser.add_argument("--classes", type=int, default=1000)
parser.add_argument("--width", type=int, default=1024)
parser.add_argument("--test", type=int, default=2048, help="test images that are measured")
parser.add_argument("--views", type=int, default=1)
parser.add_argument("--epochs", type=float, default=0.005, help="share of the papers' epochs that is measured")
parser.add_argument("--methods", default="linear-probe,gda,tip-adapter,tip-adapter-f,ape,ape-t,clap,taskres,clip-adapter,prolip,lp-plus-plus")
parser.add_argument("--grid-points", type=int, default=2, help="pairs of a search that are measured; 0 for all")
args = parser.parse_args()

FULL_TEST, FULL_SEEDS = 50_000, 3
SCALE = 100.0
BETA = [i * (7 - 0.1) / 200 + 0.1 for i in range(200)]
ALPHA = [i * (3 - 0.1) / 20 + 0.1 for i in range(20)]
GAMMA = [0.0, 0.1, 0.2, 0.3, 0.4]
unit = lambda x: x / x.norm(dim=-1, keepdim=True)
extra = 0.0  # processor time that the unmeasured epochs and pairs of the current method would take


def epochs_of(full):
    return min(full, max(1, round(full * args.epochs)))


def timed_epochs(full, steps):
    """Goes over `steps`, which are those of the measured epochs."""
    global extra
    started = time.process_time()
    yield from steps
    extra += (time.process_time() - started) * (full / epochs_of(full) - 1)


def features(rows, seed):
    x = torch.randn(rows, args.width, generator=torch.Generator().manual_seed(seed))
    x[:, ::7] += 1
    return x


class Data:
    def __init__(self, shots, seed):
        n, val = args.classes * shots, min(shots, 4)
        self.views = [unit(features(n, seed + 100 + v)) for v in range(args.views)]
        self.labels = torch.arange(args.classes).repeat_interleave(shots)
        self.val, self.val_labels = unit(features(args.classes * val, seed + 200)), torch.arange(args.classes).repeat_interleave(val)
        self.raw_text = features(args.classes, seed)
        self.text = unit(self.raw_text)
        self.keys = unit(torch.stack(self.views).mean(dim=0))
        self.values = F.one_hot(self.labels, args.classes).float()
        self.shots = shots


accuracy = lambda logits, labels: (logits.argmax(dim=1) == labels).float().mean().item()


def search(settings, logits_of, labels):
    """The best of the measured settings."""
    global extra
    timed = settings[: args.grid_points] if args.grid_points else settings
    started, best, best_accuracy = time.process_time(), settings[0], -1.0
    for setting in timed:
        a = accuracy(logits_of(*setting), labels)
        if a > best_accuracy:
            best, best_accuracy = setting, a
    elapsed = time.process_time() - started
    extra += elapsed / len(timed) * (len(settings) - len(timed))
    return best


def tip(data, keys):
    def logits_of(beta, alpha, x=data.val):
        affinity = x @ keys.T
        return SCALE * x @ data.text.T + alpha * ((-beta + beta * affinity).exp() @ data.values)

    beta, alpha = search([(b, a) for b in BETA for a in ALPHA], logits_of, data.val_labels)
    return lambda x: logits_of(beta, alpha, x)


def batches(data, full_epochs, size=256):
    def steps():
        for epoch in range(epochs_of(full_epochs)):
            view = data.views[epoch % args.views]
            for batch in torch.randperm(len(view)).split(size):
                yield view[batch], data.labels[batch]

    yield from timed_epochs(full_epochs, steps())


def descend(optimizer, batches, loss_of):
    for x, y in batches:
        loss = loss_of(x, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def linear_probe(data):
    """CoOp's: scikit-learn's regression, 1000 iterations for one penalty."""
    global extra
    from sklearn.linear_model import LogisticRegression

    iterations = epochs_of(1000)
    x, labels = torch.cat(data.views).numpy(), data.labels.repeat(args.views).numpy()
    started = time.process_time()
    model = LogisticRegression(C=1.0, max_iter=iterations, tol=1e-12).fit(x, labels)
    extra += (time.process_time() - started) * (1000 / iterations - 1)
    print(f"linear-probe: {model.n_iter_[0]} of {iterations} iterations")
    model.score(data.val.numpy(), data.val_labels.numpy())
    return lambda x: torch.from_numpy(model.decision_function(x.numpy()))


@torch.no_grad()
def gda(data):
    x, labels = torch.cat(data.views), data.labels.repeat(args.views)
    means = torch.cat([x[labels == c].mean(dim=0, keepdim=True) for c in range(args.classes)])
    centred = torch.cat([x[labels == c] - means[c] for c in range(args.classes)])
    cov, d = centred.T.cov(), args.width
    precision = d * torch.linalg.pinv((len(centred) - 1) * cov + cov.trace() * torch.eye(d))
    w = torch.einsum("nd,dc->cn", means, precision)
    b = -torch.log(torch.tensor(float(args.classes))) - torch.einsum("nd,dc,nc->n", means, precision, means) / 2
    logits_of = lambda alpha, x=data.val: SCALE * x @ data.text.T + alpha * (x @ w + b)
    (alpha,) = search([(10.0**p,) for p in range(-4, 3)], logits_of, data.val_labels)
    return lambda x: logits_of(alpha, x)


@torch.no_grad()
def tip_adapter(data):
    return tip(data, data.keys)


def tip_adapter_f(data):
    keys = torch.nn.Parameter(data.keys.clone())
    optimizer = torch.optim.AdamW([keys], lr=1e-3, eps=1e-4)
    logits = lambda x: SCALE * x @ data.text.T + 1.17 * ((-1 + x @ keys.T).exp() @ data.values)
    descend(optimizer, batches(data, 20), lambda x, y: F.cross_entropy(logits(x), y))
    with torch.no_grad():
        return tip(data, keys)


@torch.no_grad()
def ape(data):
    both = torch.cat([data.text[:, None], data.keys.view(args.classes, data.shots, -1)], dim=1)
    sums = both.sum(dim=1)
    # The authors loop over all pairs of classes and samples; that alone would take hours here, so the sum is in closed form.
    n = args.classes * (data.shots + 1)
    similarity = (sums.sum(dim=0) ** 2 - (sums**2).sum(dim=0)) / (n * n - args.classes * (data.shots + 1) ** 2)
    channels = (-0.7 * similarity + 0.3 * data.text.var(dim=0)).topk(args.width // 2).indices
    seen = lambda x: unit(x[:, channels])
    keys = seen(data.keys)
    p = (keys @ seen(data.text).T).softmax(dim=1)
    divergence = (data.values * torch.log2((data.values + 1e-6) / (p + 1e-6))).sum(dim=1)[:, None]

    def logits_of(beta, alpha, gamma, x=data.val):
        values = data.values * (divergence * gamma).exp()
        return SCALE * x @ data.text.T + alpha * ((-beta + beta * (seen(x) @ keys.T)).exp() @ values)

    settings = [(b, a, g) for b in BETA for a in ALPHA for g in GAMMA]
    best = search(settings, logits_of, data.val_labels)
    return lambda x: logits_of(*best, x)


def ape_t(data):
    sums = data.text.sum(dim=0)
    similarity = (sums**2 - (data.text**2).sum(dim=0)) / (args.classes * (args.classes - 1))
    channels = (-0.2 * similarity + 0.8 * data.text.var(dim=0)).topk(args.width // 2).indices
    residual = torch.nn.Parameter(torch.zeros(args.classes, args.width // 2))
    weights = torch.nn.Parameter(torch.ones(len(data.labels), 1))
    optimizer = torch.optim.AdamW([residual, weights], lr=1e-3, eps=1e-3, weight_decay=0.1)

    def moved():
        spread = torch.zeros_like(data.text)
        spread[:, channels] = residual
        return data.text + spread, data.keys + spread[data.labels], data.values * weights

    def loss_of(x, y):
        text, keys, values = moved()
        return F.cross_entropy(SCALE * x @ text.T + (x @ keys.T - 1).exp() @ values, y)

    descend(optimizer, batches(data, 20), loss_of)
    with torch.no_grad():
        text, keys, values = moved()

        def logits_of(beta, alpha, x=data.val):
            return SCALE * x @ text.T + alpha * ((-beta + beta * (x @ keys.T)).exp() @ values)

        best = search([(b, a) for b in BETA for a in ALPHA], logits_of, data.val_labels)
    return lambda x: logits_of(*best, x)


def clap(data):
    cosine = lambda x, w: SCALE * x @ unit(w).T
    p = torch.cat([cosine(v, data.raw_text) for v in data.views]).softmax(dim=1)
    one_hot = F.one_hot(data.labels.repeat(args.views), args.classes).float()
    multipliers = torch.diag(p.T @ one_hot) / one_hot.sum(dim=0)
    w = torch.nn.Parameter(data.raw_text.clone())
    optimizer = torch.optim.SGD([w], lr=0.1, momentum=0.9)
    penalty = lambda: (multipliers * (w - data.raw_text).pow(2).sum(dim=1)).mean()
    descend(optimizer, batches(data, 300), lambda x, y: F.cross_entropy(cosine(x, w), y) + penalty())
    return lambda x: cosine(x, w.detach())


def taskres(data):
    residual = torch.nn.Parameter(torch.zeros_like(data.raw_text))
    optimizer = torch.optim.Adam([residual], lr=2e-3)
    cosine = lambda x: SCALE * x @ unit(data.raw_text + 0.5 * residual).T
    descend(optimizer, batches(data, 100), lambda x, y: F.cross_entropy(cosine(x), y))
    return cosine


def clip_adapter(data):
    width = args.width
    layers = torch.nn.Sequential(
        torch.nn.Linear(width, width // 4, bias=False),
        torch.nn.ReLU(),
        torch.nn.Linear(width // 4, width, bias=False),
        torch.nn.ReLU(),
    )
    optimizer = torch.optim.SGD(layers.parameters(), lr=1e-2, momentum=0.9)
    logits = lambda x: SCALE * unit(0.2 * layers(x) + 0.8 * x) @ data.text.T
    descend(optimizer, batches(data, 300), lambda x, y: F.cross_entropy(logits(x), y))
    return logits


def prolip(data):
    start = torch.eye(args.width)
    w = torch.nn.Parameter(start.clone())
    optimizer = torch.optim.Adam([w], lr=1e-5, eps=1e-4)
    logits = lambda x: SCALE * unit(x @ w) @ data.text.T
    loss_of = lambda x, y: F.cross_entropy(logits(x), y) + (w - start).pow(2).sum() / data.shots
    descend(optimizer, batches(data, 300, len(data.labels)), loss_of)
    return logits


def lp_plus_plus(data):
    x, n = data.views[0], len(data.labels)
    cosines = x @ data.text.T
    rate = 4 * n / torch.linalg.eigvalsh(x.T @ x).max().item()
    blending_rate = n / (4 * cosines.pow(2).sum(dim=0).max().item())
    w = torch.nn.Parameter(data.values.T @ x)
    b = torch.nn.Parameter(torch.zeros(args.classes))
    own = (cosines * data.values).sum(dim=0) / data.shots
    blending = (250 * own.mean() * torch.ones(args.classes)).requires_grad_()
    logits = lambda x: x @ w.T + b + blending * (x @ data.text.T)
    optimizer, best = torch.optim.SGD([w, b], lr=rate, momentum=0.9), (-1.0, None)
    for epoch in timed_epochs(300, range(1, epochs_of(300) + 1)):
        loss = F.cross_entropy(logits(x), data.labels)
        optimizer.zero_grad()
        blending.grad = None
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            if epoch % 10 == 0:
                blending -= blending_rate * blending.grad
            score = accuracy(logits(data.val), data.val_labels)
            if score >= best[0]:
                best = (score, (w.detach().clone(), b.detach().clone(), blending.detach().clone()))
    w, b, blending = best[1]
    return lambda x: x @ w.T + b + blending * (x @ data.text.T)


FUNCTIONS = (linear_probe, gda, tip_adapter, tip_adapter_f, ape, ape_t, clap, taskres, clip_adapter, prolip, lp_plus_plus)
METHODS = {f.__name__.replace("_", "-"): f for f in FUNCTIONS}


def peak_memory():
    """Most memory since `forget_peak`, in MiB."""
    line = next(x for x in open("/proc/self/status") if x.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def forget_peak():
    pathlib.Path("/proc/self/clear_refs").write_text("5")


def show(name, wall, cpu, full, peak, more=""):
    print(f"{name}: wall {wall:.2f} s, cpu {cpu:.2f} s, full cpu {full:.1f} s, peak {peak:.0f} MiB{more}", flush=True)


test, totals = unit(features(args.test, 0)), {}
for shots in map(int, args.shots.split(",")):
    for seed in range(1, args.seeds + 1):
        data = Data(shots, seed)
        for name in args.methods.split(","):
            forget_peak()
            extra, clock, started = 0.0, time.perf_counter(), time.process_time()
            predict = METHODS[name](data)
            fitted = time.process_time() - started
            with torch.no_grad():
                checksum = sum(predict(x)[:, 0].double().sum().item() for x in test.split(1024))
            cpu, wall = time.process_time() - started, time.perf_counter() - clock
            full = fitted + extra + (cpu - fitted) * FULL_TEST / args.test
            row = (wall, cpu, full, peak_memory())
            show(f"{name} shots {shots} seed {seed}", *row, f", checksum {checksum:.3f}")
            before = totals.get(name, (0.0,) * 4)
            totals[name] = tuple(a + b for a, b in zip(before[:3], row)) + (max(before[3], row[3]),)
totals = {name: (wall, cpu, full * FULL_SEEDS / args.seeds, peak) for name, (wall, cpu, full, peak) in totals.items()}
for name, row in totals.items():
    show(name, *row)
*sums, peaks = zip(*totals.values())
show("all", *map(sum, sums), max(peaks))
