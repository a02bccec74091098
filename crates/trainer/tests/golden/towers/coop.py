"""CoOp (arXiv 2109.01134): learned vectors behind the start token; the first ones are in the file.

SGD 0.005 with momentum 0.9 and weight decay 5e-4, one epoch at 1e-5, then a cosine over the epochs. Unified and of each class.
"""

import torch
import torch.nn.functional as F

from common import CLASSES, HERE, SCALE, WIDTH, Clip, cosine, train, write

EPOCHS, LENGTH, RATE = 8, 3, 0.005
g = torch.Generator().manual_seed(4)
clip = Clip()
images = clip.images().detach()
embedded = clip.embedded()
# Placeholders: the three tokens behind the start belong to the learned vectors.
start, name = embedded[:, :1], embedded[:, 1:]
clip.ids = torch.cat([clip.ids[:, :1], torch.zeros(CLASSES, LENGTH, dtype=torch.long), clip.ids[:, 1:]], dim=1)
tensors, all_losses = {"images": images}, []
for kind, owners in (("unified", 1), ("own", CLASSES)):
    first = torch.randn(owners, LENGTH, WIDTH, generator=g) * 0.3
    context = first.double().requires_grad_()
    texts = lambda: clip.texts(torch.cat([start, context.expand(CLASSES, LENGTH, WIDTH), name], dim=1))
    logits = lambda: SCALE * images @ texts().T
    optimizer = torch.optim.SGD([context], lr=RATE, momentum=0.9, weight_decay=5e-4)
    rate_of = lambda epoch: 1e-5 if epoch == 0 else cosine(RATE, 0.0, epoch - 1, EPOCHS)
    all_losses += train(optimizer, EPOCHS, rate_of, lambda: F.cross_entropy(logits(), clip.labels))
    tensors |= {f"{kind}/start": first, f"{kind}/logits": logits()}
write("coop", tensors, all_losses)
