"""Several processes that train one model: each takes its share of every batch, and their gradients become one.

Data parallelism by PyTorch's DistributedDataParallel (Li et al. 2020), or in parts for large models (`sharding`). A
batch is a pure function of its number, so every rank makes it and takes its share; the loss is divided by the targets
of all shares, so that the number of ranks changes nothing but rounding. One process without a group is rank 0 of 1, for
which all of this is without effect.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from genai_core.errors import InputError
from genai_core.models.language_model import LanguageModel
from genai_core.training import compilation, sharding
from genai_core.training.objectives.objective import Batch, Objective

Answer = TypeVar("Answer")

_leader = 0
_patient: dist.ProcessGroup | None = None
"""The same ranks, for what one waits for while another computes by itself, for however long."""
PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class Ranks:
    """This process's place among those that train together."""

    rank: int = 0
    count: int = 1
    leader: int = 0
    """The rank that writes and reports: the lowest on the host that asked for the training."""

    @classmethod
    def current(cls) -> "Ranks":
        return cls(dist.get_rank(), dist.get_world_size(), _leader) if dist.is_initialized() else cls()

    @property
    def leads(self) -> bool:
        return self.rank == self.leader

    def share(self, batch: Batch) -> Batch:
        """This rank's examples of a batch. Raises InputError where the ranks do not divide them evenly."""
        if self.count == 1:
            return batch
        return {name: tensor[self.part(len(tensor))] for name, tensor in batch.items()}

    def part(self, size: int) -> slice:
        """This rank's part of `size` examples. Raises InputError where the ranks do not divide them evenly."""
        if size % self.count:
            raise InputError(f"runtime.processes: {self.count} ranks do not divide {size} examples of a micro-batch "
                             "evenly; choose a batch size that they divide")
        return slice(size // self.count * self.rank, size // self.count * (self.rank + 1))

    def all_gather(self, share: Tensor) -> Tensor:
        """The shares of all ranks, one after the other, on each of them. The gradient of this rank's own is multiplied
        by the number of ranks: each takes the loss of the whole as its share of a sum, divided by that number."""
        if self.count == 1:
            return share
        shares = [torch.empty_like(share) for _ in range(self.count)]
        dist.all_gather(shares, share.detach().contiguous())
        if share.requires_grad:
            shares[self.rank] = share + (self.count - 1) * (share - share.detach())
        return torch.cat(shares)

    def all_reduce(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Scalars on the device, added up over all ranks, by one message."""
        if self.count == 1:
            return values
        total = torch.stack([value.detach().float() for value in values.values()])
        dist.all_reduce(total)
        return dict(zip(values, total, strict=True))

    def on_any(self, *flags: bool) -> list[bool]:
        """Each flag, True on every rank where it is on any: what a clock or a signal says, which ranks hear of at
        different times."""
        if self.count == 1:
            return list(flags)
        raised = torch.tensor([float(flag) for flag in flags])
        dist.all_reduce(raised, dist.ReduceOp.MAX)
        return [bool(flag) for flag in raised]

    def broadcast(self, tensors: dict[str, dict[str, Tensor]] | None, state: dict[str, Any] | None
             ) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]] | None:
        """What the leader has read, on all: files of named tensors on the CPU and a state of JSON; None where it
        has read nothing."""
        if self.count == 1:
            return None if tensors is None or state is None else (tensors, state)
        header = {"state": state, "files": {file: {name: [str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]
                                                   for name, tensor in named.items()}
                                            for file, named in (tensors or {}).items()}}
        told = self._text(json.dumps(header) if self.leads else "", self.leader)
        header = json.loads(told)
        if header["state"] is None:
            return None
        files: dict[str, dict[str, Tensor]] = {}
        for file, named in header["files"].items():
            files[file] = {}
            for name, (dtype, shape) in named.items():
                tensor = tensors[file][name] if tensors is not None and self.leads else \
                    torch.empty(shape, dtype=getattr(torch, dtype))
                dist.broadcast(tensor, self.leader)
                files[file][name] = tensor
        return files, header["state"]

    def share_out(self, names: Sequence[str], make: Callable[[str], Any]) -> dict[str, Any]:
        """What `make` makes of each name, as JSON, on all ranks: each makes its share of them, and waits for the others
        for as long as that takes them."""
        own = {name: make(name) for name in names[self.rank::self.count]}
        if self.count == 1:
            return own
        made: dict[str, Any] = {}
        for rank in range(self.count):
            made |= json.loads(self._text(json.dumps(own) if rank == self.rank else "", rank))
        return {name: made[name] for name in names}

    def _text(self, text: str, source: int) -> str:
        """The text of one rank, on all."""
        size = torch.tensor([len(text.encode())])
        dist.broadcast(size, source, _patient)
        content = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8) if self.rank == source else \
            torch.empty(int(size), dtype=torch.uint8)
        dist.broadcast(content, source, _patient)
        return content.numpy().tobytes().decode()

    def wait(self) -> None:
        """Until all ranks are here, for however long."""
        if self.count > 1:
            dist.barrier(_patient)


class SharedLoss:
    """The loss of an objective on this rank's share of a batch; going back from it adds up the gradients of all ranks.

    `scale` is what the loss is multiplied by so that the sum is one: the mean over ranks is taken of gradients. Of a
    model with more parameters than `shard_above`, each rank has a part from then on.
    """

    def __init__(self, ranks: Ranks, model: nn.Module, objective: Objective, device: torch.device, compiled: bool,
                 shard_above: int):
        self.scale = float(ranks.count)
        several_players = len(objective.players(model)) > 1
        self.sharded = (ranks.count > 1 and not several_players
                        and sum(parameter.numel() for parameter in model.parameters()) > shard_above)
        self._loss = compilation.loss_function(objective, compiled and not self.sharded)
        self._model = model
        self._module: nn.Module = _Call(model)
        if self.sharded:
            self._blank = sharding.blank_of(model)
            sharding.shard(self._module, device.type, compiled)
        elif ranks.count > 1:      # of two players one has no gradients at a step, and of others a head may be unused
            uses_all = isinstance(model, LanguageModel) and not several_players
            self._module = DistributedDataParallel(self._module, find_unused_parameters=not uses_all,
                                                   gradient_as_bucket_view=True)

    def __call__(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        loss: tuple[Tensor, dict[str, Tensor]] = self._module(self._loss, batch)
        return loss

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Within it, gradients stay on this rank: those of all micro-batches but the last. Of a model in parts they do
        not, since they would be whole there."""
        if isinstance(self._module, DistributedDataParallel):
            with self._module.no_sync():
                yield
        else:
            yield

    def call(self, function: Callable[..., Answer], *arguments: Any) -> Answer:
        """What a function answers that calls the model otherwise than for its loss."""
        if not isinstance(self._module, FSDPModule):
            return function(*arguments)
        gathered: Any = self._module      # within its own call
        with torch.no_grad():
            answer: Answer = gathered(function, *arguments)
        gathered.reshard()
        return answer

    def put_together(self) -> None:
        """Training is over: the model has all its parameters again, on every rank."""
        if self.sharded:
            sharding.put_together(self._model, self._blank)


class _Call(nn.Module):
    """A module with the parameters of a model, as what wraps modules wants it, that calls what it is given."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, function: Callable[..., Answer], *arguments: Any) -> Answer:
        return function(*arguments)


@contextmanager
def joined(backend: str, seconds: float) -> Iterator[Ranks]:
    """The group of processes that `torchrun` started, which meet within `seconds` or raise InputError. The leader is
    among those whose environment has LEADING_HOST, where there are such."""
    global _leader, _patient
    if "RANK" not in os.environ:
        yield Ranks()
        return
    began = time.monotonic()
    try:
        dist.init_process_group(backend, timeout=timedelta(seconds=seconds))
    except (dist.DistError, RuntimeError) as error:
        raise InputError(f"rank {os.environ['RANK']} of {os.environ['WORLD_SIZE']} has not met the others within "
                         f"{time.monotonic() - began:.0f} s at {os.environ.get('MASTER_ADDR')}: "
                         f"{str(error).splitlines()[0]}") from None
    _patient = dist.new_group(backend="gloo", timeout=PATIENCE)
    on_leading_host = torch.tensor([dist.get_rank() if "LEADING_HOST" in os.environ else dist.get_world_size()])
    dist.all_reduce(on_leading_host, dist.ReduceOp.MIN)
    _leader = int(on_leading_host) % dist.get_world_size()
    try:
        yield Ranks.current()
    finally:
        _patient = None
        dist.destroy_process_group()
