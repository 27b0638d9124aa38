"""The first losses of a training, as a file of the repository has them: whoever changes the arithmetic sees it.

After a change that is meant, write the new ones: `GENAI_GOLDEN=write pytest tests/genai_core -k golden -n 0`.
"""

import json
import os
from pathlib import Path

import pytest
import torch

from genai_core.training import loop, optimizers
from genai_core.training.curves import Curves
from genai_core.training.objectives import alignment

FILE = Path(__file__).with_name("golden_losses.json")
STEPS = 20
TIGHT = 5
TOLERANCES = {"rel": 2e-4, "abs": 2e-5}, {"rel": 5e-3, "abs": 2e-4}
"""Of the first TIGHT losses, and of all: other processors add in another order, and twenty steps enlarge that."""


PRECISE = (loop, optimizers, alignment)
"""Modules that ask in which precision to compute."""


def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train as a machine without bfloat16 does: the same everywhere."""
    for module in PRECISE:
        monkeypatch.setattr(module, "choose_precision", lambda device: torch.float32)


def check(name: str, curves: Curves) -> None:
    """Compare the first losses of a training with those in the file, or write them there."""
    losses = [value for _, value in curves["loss"][:STEPS]]
    assert len(losses) == STEPS
    known = json.loads(FILE.read_text()) if FILE.is_file() else {}
    if os.environ.get("GENAI_GOLDEN") == "write":
        known[name] = [round(loss, 5) for loss in losses]
        lines = [f'"{key}": {json.dumps(known[key])}' for key in sorted(known)]
        FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    for count, tolerance in zip((TIGHT, STEPS), TOLERANCES, strict=True):
        assert losses[:count] == pytest.approx(known[name][:count], **tolerance)
