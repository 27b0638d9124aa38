"""What the machine offers: device, precision, deterministic kernels, memory allocation, and how fast it multiplies."""

import ctypes
import os
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import psutil
import torch

from genai_core.errors import InputError


def choose_device(wanted: str) -> torch.device:
    """`auto` is the GPU when there is one, of NVIDIA or of a Mac. Raises InputError for one that is not there."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        wanted = next(name for name, found in there.items() if found)
    if not there[wanted]:
        raise InputError(f"runtime.device: {wanted} was asked for, but PyTorch sees no such GPU; use auto or cpu")
    return torch.device(wanted)


def choose_precision(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it (GPUs since Ampere, CPUs with AMX or AVX512-BF16), else float32, which
    is also what a Mac's GPU takes."""
    if device.type == "mps":
        return torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    fast = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast else torch.float32


def autocast(device: torch.device, precision: torch.dtype) -> AbstractContextManager[Any]:
    return nullcontext() if precision is torch.float32 else torch.autocast(device.type, dtype=precision)


def prepare(device: torch.device, deterministic: str = "auto") -> None:
    """Deterministic kernels where they cost nothing or are asked for, and on Linux an allocator that keeps large blocks
    instead of returning them.

    `auto` is `on` for a CPU, where they were measured to cost nothing, and `off` for a GPU (docs/gpu.md). Where `on`
    meets an operation of a GPU that has no deterministic kernel, PyTorch warns. glibc gives memory of large tensors
    back to the kernel at once, and each step pays for it again in page faults.
    """
    wanted = deterministic == "on" or (deterministic == "auto" and device.type == "cpu")
    torch.use_deterministic_algorithms(wanted, warn_only=device.type != "cpu")
    # with deterministic kernels PyTorch fills all new memory, in case someone reads what was never written; nobody does
    torch.utils.deterministic.fill_uninitialized_memory = False      # type: ignore[attr-defined]
    if device.type == "cuda":
        if wanted:      # cuBLAS reads it when it makes its first workspace
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        # TF32. Set for one backend alone, get_float32_matmul_precision would raise from then on.
        torch.set_float32_matmul_precision("high")
    elif sys.platform == "linux":
        trim_threshold, top_pad, mmap_threshold = -1, -2, -3       # names of malloc.h
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            for option, value in ((mmap_threshold, 2**31 - 1), (trim_threshold, 2**31 - 1), (top_pad, 2**28)):
                libc.mallopt(option, value)


def available_memory(root: Path = Path("/")) -> int:
    """Bytes of memory that can be had: of the machine, or on Linux of the container that this process runs in."""
    return min([int(psutil.virtual_memory().available), *_left_in_cgroups(root)])


def _left_in_cgroups(root: Path) -> list[int]:
    """Bytes that each limited control group of this process, of version 2 or 1, has left; files that it has read fall
    out of memory by themselves."""
    found = []
    try:
        groups = [line.split(":", 2)[1:] for line in (root / "proc/self/cgroup").read_text().splitlines()]
    except OSError:
        return []
    for controllers, path in groups:
        if controllers and "memory" not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        limit, used, read = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file") if controllers \
            else ("memory.max", "memory.current", "inactive_file")
        group = top / path.strip("/")
        for each in (group, *group.parents):
            if not each.is_relative_to(top):
                break
            try:
                files = dict(line.split() for line in (each / "memory.stat").read_text().splitlines())
                left = int((each / limit).read_text()) - int((each / used).read_text()) + int(files.get(read, 0))
            except (OSError, ValueError):      # there is none here, or it is "max"
                continue
            found.append(max(0, left))
    return found


def describe(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return "the GPU of a Mac"
    return f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"


def matrix_flops_per_second(device: torch.device, size: int = 0, seconds: float = 0.2) -> float:
    """Floating-point operations per second of square matrix products in the precision that training would use; 0 is a
    size that the device is busy with."""
    precision = choose_precision(device)
    size = size or (512 if device.type == "cpu" else 8192)
    a = torch.randn(size, size, device=device).to(precision)
    for _ in range(3):
        a @ a
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for _ in range(4):      # a GPU has the next one in its queue
            product = a @ a
        product[0, 0].item()
        count += 4
    return 2 * size**3 * count / (time.perf_counter() - start)
