"""Checkpoints of a training whose state is in parts: each rank writes its own, and any number of ranks reads them.

By PyTorch's distributed checkpoints in their safetensors form, where each file says in its header which part of a
tensor it has. Nothing is pickled into a file.
"""

import shutil
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as distributed_checkpoint
from torch import Tensor
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from genai_core.errors import InputError
from genai_core.training.ranks import Ranks


def begin(scratch: Path, tensors: Mapping[str, Tensor], group: dist.ProcessGroup) -> Callable[[], None]:
    """Copy the tensors and begin to write this rank's parts of them into `scratch`; what waits for all ranks' writes.
    Every rank calls it, with a group that nothing else uses meanwhile."""
    if Ranks.current().leads:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
    dist.barrier(group)
    written = distributed_checkpoint.async_save(
        dict(tensors), storage_writer=HuggingFaceStorageWriter(str(scratch), save_distributed=True),
        process_group=group)
    assert isinstance(written, Future)
    return lambda: written.result() and None


def shapes_of(path: Path) -> dict[str, torch.Size]:
    """Names and whole shapes of the tensors of a checkpoint. Raises SafetensorError, OSError or ValueError for a
    damaged one."""
    metadata = HuggingFaceStorageReader(str(path)).read_metadata().state_dict_metadata
    found = {name: entry for name, entry in metadata.items() if isinstance(entry, TensorStorageMetadata)}
    for name, entry in found.items():
        if sum(chunk.sizes.numel() for chunk in entry.chunks) < entry.size.numel():
            raise ValueError(f"a part of {name} is missing")
    return {name: entry.size for name, entry in found.items()}


def require_shared(directory: Path) -> None:
    """Raises InputError on every rank unless all ranks see the leader's folder of checkpoints."""
    ranks = Ranks.current()
    token = torch.randint(2 ** 62, (1,))
    dist.broadcast(token, ranks.leader)
    mark = directory / f".seen-{token.item()}"
    if ranks.leads:
        directory.mkdir(parents=True, exist_ok=True)
        mark.touch()
    dist.barrier()
    (unseen,) = ranks.on_any(not mark.exists())
    if ranks.leads:
        mark.unlink()
    if unseen:
        raise InputError(f"{directory}: not every rank sees it, and of a model in parts each writes its own part of a "
                         "checkpoint there; give all machines one file system for GENAI_HOME, or raise "
                         "runtime.shard_above")


def read_into(path: Path, tensors: dict[str, Tensor]) -> None:
    """Fill tensors, in parts or whole, from a checkpoint in parts or whole. Every rank calls it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        distributed_checkpoint.load(tensors, storage_reader=HuggingFaceStorageReader(str(path)))
