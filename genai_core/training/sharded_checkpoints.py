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
    """Names and whole shapes of the tensors of a checkpoint. Raises SafetensorError or OSError for a damaged one."""
    metadata = HuggingFaceStorageReader(str(path)).read_metadata().state_dict_metadata
    return {name: entry.size for name, entry in metadata.items() if isinstance(entry, TensorStorageMetadata)}


def read_into(path: Path, tensors: dict[str, Tensor]) -> None:
    """Fill tensors, in parts or whole, from a checkpoint in parts or whole. Every rank calls it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        distributed_checkpoint.load(tensors, storage_reader=HuggingFaceStorageReader(str(path)))
