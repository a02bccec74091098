"""Writes the `.pt` and `.pkl` seeds beside it. Run with PyTorch 2.9.0."""

import zipfile
from collections import OrderedDict
from pathlib import Path

import torch

HERE = Path(__file__).parent
WEIGHT = torch.arange(6, dtype=torch.float32).reshape(2, 3)
STATE = OrderedDict(weight=WEIGHT.t(), half=WEIGHT[0].half(), count=torch.tensor(3))
FORMS = {
    "state_dict": STATE,
    "nested": {"epoch": 1, "name": "x", "lr": 0.5, "state_dict": {"module.weight": torch.nn.Parameter(WEIGHT.bfloat16())}, "args": [None, True, (1, 2)]},
}

(HERE / "torch_file").mkdir(exist_ok=True)
(HERE / "torch_pickle").mkdir(exist_ok=True)
for name, value in FORMS.items():
    torch.save(value, HERE / f"torch_file/{name}.pt")
torch.save(STATE, HERE / "torch_file/legacy.pt", _use_new_zipfile_serialization=False)
torch.jit.script(torch.nn.Linear(2, 2)).save(HERE / "torch_file/script.pt")
for name in [*FORMS, "script"]:
    with zipfile.ZipFile(HERE / f"torch_file/{name}.pt") as archive:
        pickle = next(entry for entry in archive.namelist() if entry.endswith("/data.pkl"))
        (HERE / f"torch_pickle/{name}.pkl").write_bytes(archive.read(pickle))
