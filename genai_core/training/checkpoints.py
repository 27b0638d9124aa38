"""Checkpoints of a training stage: whole or not there, and enough to go on to the same weights bit for bit.

Everything is in safetensors and JSON, so that a checkpoint can be read without running code from it. The newest two are
kept: should the newest be damaged, its predecessor is whole.
"""

import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from genai_core.context import Reporter
from genai_core.models.adapters import has_adapters
from genai_core.training import sharded_checkpoints
from genai_core.training.guards import Guard
from genai_core.training.ranks import Ranks
from genai_core.training.sharding import is_sharded

logger = logging.getLogger("genai_core")

STATE = ("passed_over", "done", "skipped", "rewinds", "evaluated", "streaks", "curves")
"""Fields of the state that a training keeps beside its tensors."""
KEPT = 2
"""Number of checkpoints that stay, the newest ones."""

_NAME = re.compile(r"^step-(\d{8})$")


Snapshot = dict[str, dict[str, Tensor]]
"""Tensors of a training, by the file that they come into; no two of a training have the same name."""


def snapshot(model: nn.Module, optimizers: list[torch.optim.Optimizer], guard: dict[str, Tensor]) -> Snapshot:
    """A copy of what training goes on from, which further steps leave alone."""
    files = tensors_of(model, optimizers, guard)
    return {file: {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
            for file, tensors in files.items()}


def tensors_of(model: nn.Module, optimizers: list[torch.optim.Optimizer], guard: dict[str, Tensor]) -> Snapshot:
    """What training goes on from, as it is."""
    random = {"random/cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        random["random/cuda"] = torch.cuda.get_rng_state()
    if torch.backends.mps.is_available():
        random["random/mps"] = torch.mps.get_rng_state()
    return {"model": state_of(model), "optimizer": _optimizer_tensors(optimizers), "extra": random | guard}


def write(directory: Path, step: int, tensors: Snapshot, state: dict[str, Any]) -> None:
    """Write `step-NNNNNNNN`: model, optimizers, random state and `state`; keep it and the one before.

    Checkpoints of later steps go too: the training that saves this one has passed them over as damaged, or has gone
    back beyond them.
    """
    scratch = directory / f".step-{step:08d}.{os.getpid()}"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    for file, named in tensors.items():
        save_file(named, scratch / f"{file}.safetensors")
    _commit(directory, scratch, step, state)


def begin_in_parts(directory: Path, step: int, tensors: Snapshot, state: dict[str, Any], group: dist.ProcessGroup
                   ) -> Callable[[], None]:
    """As `write`, of a training whose state is in parts: the tensors are copied, and each rank begins to write its own.
    Every rank calls it, and then what comes back, which waits until the checkpoint is whole."""
    scratch = directory / f".step-{step:08d}.parts"
    wait = sharded_checkpoints.begin(scratch, _flat(tensors), group)

    def finish() -> None:
        wait()
        if Ranks.current().leads:
            files = len(list(scratch.glob("*.safetensors")))
            _commit(directory, scratch, step, state | {"files": files})
        dist.barrier(group)

    return finish


def _flat(tensors: Snapshot) -> dict[str, Tensor]:
    return {name: tensor for named in tensors.values() for name, tensor in named.items()}


def _commit(directory: Path, scratch: Path, step: int, state: dict[str, Any]) -> None:
    """Make a scratch folder of files a checkpoint, and remove those that are not to be kept."""
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
    the random state; its `state`. Of several ranks the leader reads and hands it to the others; but what is, or was, in
    parts is read by all.

    None when there is none. A damaged one is passed over for the one before it, with a warning, and stays where it is:
    reading deletes nothing.
    """
    ranks = Ranks.current()
    read = _read(directory, model, guard, reporter, before) if ranks.leads else None
    together = ranks.broadcast(*(read or (None, None)))
    if together is None:
        return None
    tensors, state = together
    if parts := state.pop("parts", None):
        tensors = _read_parts(directory / parts, model, optimizers, guard)
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
            state = json.loads((path / "state.json").read_text(encoding="utf-8"))
            tensors: Snapshot = {}
            if is_sharded(model) or not (path / "model.safetensors").is_file():
                state["parts"] = path.name
                if len(list(path.glob("*.safetensors"))) < state.get("files", 1):
                    raise ValueError("a part of it is missing")
                shapes = sharded_checkpoints.shapes_of(path)
            else:
                tensors = {file: load_file(path / f"{file}.safetensors") for file in ("model", "optimizer", "extra")}
                shapes = {name: tensor.shape for name, tensor in _flat(tensors).items()}
            _require_whole(model, guard, shapes, state)
        except (OSError, ValueError, SafetensorError) as error:
            logger.warning("%s is damaged and passed over: %s", path, error)
            reporter.note(f"the checkpoint at step {step} is damaged and passed over")
            continue
        return tensors, state
    if found:
        reporter.note("no checkpoint is whole: beginning anew")
    return None


def _require_whole(model: nn.Module, guard: Guard, shapes: Mapping[str, torch.Size], state: Any) -> None:
    """Raises ValueError unless everything that will be restored is there, before anything is."""
    weights = {name: tensor.shape for name, tensor in state_of(model).items()}
    if weights.items() - shapes.items() or any(name not in weights for name in shapes if _is_weight(name)):
        raise ValueError("its weights are not those of this model")
    missing = {*guard.state(), "random/cpu"} - shapes.keys()
    if missing or not isinstance(state, dict) or not {"step", *STATE} <= set(state):
        raise ValueError("its random state, or a field of its state, is missing")


def _is_weight(name: str) -> bool:
    """Whether a tensor of a checkpoint is one of the model's: all others have a name like a path."""
    return "/" not in name


def _read_parts(path: Path, model: nn.Module, optimizers: list[torch.optim.Optimizer], guard: Guard) -> Snapshot:
    """This rank's parts of what a checkpoint has, the weights read into the model at once."""
    weights, extra, states = state_of(model), {**guard.state(), "random/cpu": torch.get_rng_state()}, {}
    for name, shape in sharded_checkpoints.shapes_of(path).items():
        if name.startswith("random/"):
            extra[name] = torch.empty(shape, dtype=torch.uint8)
        elif name not in extra and not _is_weight(name):
            states[name] = _slot(optimizers, name, shape)
    sharded_checkpoints.read_into(path, {**weights, **states, **extra})
    return {"model": weights, "optimizer": states, "extra": extra}


def _slot(optimizers: list[torch.optim.Optimizer], name: str, shape: torch.Size) -> Tensor:
    """Room for a tensor `number/index/name` of an optimizer's state, in parts where that of its parameter is."""
    number, index, _ = name.split("/")
    parameters = [parameter for group in optimizers[int(number)].param_groups for parameter in group["params"]]
    parameter = parameters[int(index)]
    return torch.zeros_like(parameter) if parameter.shape == shape else torch.zeros(shape)


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name, each tensor once although two names may share it. Of a model with
    adapters only what is trained: the weights below them are those of the model that the stage begins with."""
    found: dict[int, tuple[str, Tensor]] = {}
    adapted = has_adapters(model)
    for name, tensor in model.state_dict(keep_vars=True).items():
        if adapted and isinstance(tensor, nn.Parameter) and not tensor.requires_grad:
            continue
        found.setdefault(id(tensor), (name, tensor.detach()))
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
