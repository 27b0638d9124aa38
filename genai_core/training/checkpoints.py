"""Checkpoints of a training stage: whole or not there, and enough to go on to the same weights bit for bit.

Everything is in safetensors and JSON, so that a checkpoint can be read without running code from it. The newest two are
kept: should the newest be damaged, its predecessor is whole.
"""

import json
import logging
import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from genai_core.context import Reporter
from genai_core.training.guards import Guard
from genai_core.training.ranks import Ranks

logger = logging.getLogger("genai_core")

STATE = ("passed_over", "done", "skipped", "rewinds", "streaks", "curves")
"""Fields of the state that a training keeps beside its tensors."""
KEPT = 2
"""Number of checkpoints that stay, the newest ones."""

_NAME = re.compile(r"^step-(\d{8})$")


Snapshot = dict[str, dict[str, Tensor]]
"""Tensors of a training on the CPU, by the file that they come into."""


def snapshot(model: nn.Module, optimizers: list[torch.optim.Optimizer], guard: dict[str, Tensor]) -> Snapshot:
    """A copy of what training goes on from, which further steps leave alone."""
    random = {"random/cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        random["random/cuda"] = torch.cuda.get_rng_state()
    if torch.backends.mps.is_available():
        random["random/mps"] = torch.mps.get_rng_state()
    files = {"model": state_of(model), "optimizer": _optimizer_tensors(optimizers), "extra": random | guard}
    return {file: {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
            for file, tensors in files.items()}


def write(directory: Path, step: int, tensors: Snapshot, state: dict[str, Any]) -> None:
    """Write `step-NNNNNNNN`: model, optimizers, random state and `state`; keep it and the one before.

    Checkpoints of later steps go too: the training that saves this one has passed them over as damaged, or has gone
    back beyond them.
    """
    directory.mkdir(parents=True, exist_ok=True)
    scratch = directory / f".step-{step:08d}.{os.getpid()}"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    for file, named in tensors.items():
        save_file(named, scratch / f"{file}.safetensors")
    (scratch / "state.json").write_text(json.dumps({"step": step, **state}), encoding="utf-8")
    for path in scratch.iterdir():
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
    target = directory / f"step-{step:08d}"
    if target.exists():
        shutil.rmtree(target)
    scratch.rename(target)
    saved = [path for number, path in _saved(directory) if number <= step]
    later = [path for number, path in _saved(directory) if number > step]
    for path in saved[:-KEPT] + later:
        shutil.rmtree(path, ignore_errors=True)


def restore(directory: Path, model: nn.Module, optimizers: list[torch.optim.Optimizer], guard: Guard,
            reporter: Reporter, before: int | None = None) -> dict[str, Any] | None:
    """Load the newest whole checkpoint, or the newest of those before a step, into `model`, `optimizers`, `guard` and
    the random state; its `state`. Of several ranks the first one reads and hands it to the others.

    None when there is none. A damaged one is passed over for the one before it, with a warning, and stays where it is:
    reading deletes nothing.
    """
    ranks = Ranks.current()
    read = _read(directory, model, guard, reporter, before) if ranks.first else None
    together = ranks.same(*(read or (None, None)))
    if together is None:
        return None
    tensors, state = together
    with torch.no_grad():
        for name, tensor in state_of(model).items():
            tensor.copy_(tensors["model"][name])
    _load_optimizer_tensors(optimizers, tensors["optimizer"])
    extra = tensors["extra"]
    guard.restore(extra)
    torch.set_rng_state(extra["random/cpu"])
    cuda = extra.get("random/cuda")
    if cuda is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(cuda)
    mps = extra.get("random/mps")
    if mps is not None and torch.backends.mps.is_available():
        torch.mps.set_rng_state(mps)
    return state


def _read(directory: Path, model: nn.Module, guard: Guard, reporter: Reporter, before: int | None
          ) -> tuple[Snapshot, dict[str, Any]] | None:
    found = [(step, path) for step, path in _saved(directory) if before is None or step < before]
    for step, path in reversed(found):
        try:
            tensors = {file: load_file(path / f"{file}.safetensors") for file in ("model", "optimizer", "extra")}
            state = json.loads((path / "state.json").read_text(encoding="utf-8"))
            _require_whole(model, tensors["model"], {*guard.state(), "random/cpu"} - tensors["extra"].keys(), state)
        except (OSError, ValueError, SafetensorError) as error:
            logger.warning("%s is damaged and passed over: %s", path, error)
            reporter.note(f"the checkpoint at step {step} is damaged and passed over")
            continue
        return tensors, state
    if found:
        reporter.note("no checkpoint is whole: beginning anew")
    return None


def _require_whole(model: nn.Module, weights: dict[str, Tensor], missing: set[str], state: Any) -> None:
    """Raises ValueError unless everything that will be restored is there, before anything is."""
    shapes = {name: tensor.shape for name, tensor in state_of(model).items()}
    if {name: tensor.shape for name, tensor in weights.items()} != shapes:
        raise ValueError("its weights are not those of this model")
    if missing or not isinstance(state, dict) or not {"step", *STATE} <= set(state):
        raise ValueError("its random state, or a field of its state, is missing")


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name, each tensor once although two names may share it."""
    found: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in model.state_dict().items():
        found.setdefault(tensor.data_ptr(), (name, tensor.detach()))
    return dict(found.values())


def _saved(directory: Path) -> list[tuple[int, Path]]:
    found = [(int(match[1]), path) for path in directory.glob("step-*") if (match := _NAME.match(path.name))]
    return sorted(found)


def _optimizer_tensors(optimizers: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    tensors = {}
    for number, optimizer in enumerate(optimizers):
        for index, slots in optimizer.state_dict()["state"].items():
            for name, value in slots.items():
                tensors[f"{number}/{index}/{name}"] = value
    return tensors


def _load_optimizer_tensors(optimizers: list[torch.optim.Optimizer], tensors: dict[str, Tensor]) -> None:
    states: list[dict[int, dict[str, Tensor]]] = [{} for _ in optimizers]
    for key, value in tensors.items():
        number, index, name = key.split("/")
        states[int(number)].setdefault(int(index), {})[name] = value
    for optimizer, state in zip(optimizers, states, strict=True):
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
