"""What the machine offers: device, precision, deterministic kernels, memory allocation, and how fast it multiplies."""

import ctypes
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from genai_core.errors import InputError


def choose_device(wanted: str) -> torch.device:
    """`auto` is the GPU when there is one. Raises InputError for `cuda` where there is none."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise InputError("runtime.device: cuda was asked for, but PyTorch sees no GPU; use auto or cpu")
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def choose_precision(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it (GPUs since Ampere, CPUs with AMX or AVX512-BF16), else float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    fast = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast else torch.float32


def autocast(device: torch.device, precision: torch.dtype) -> AbstractContextManager[Any]:
    return nullcontext() if precision is torch.float32 else torch.autocast(device.type, dtype=precision)


def prepare(device: torch.device) -> None:
    """Deterministic kernels, and on Linux an allocator that keeps large blocks instead of returning them.

    glibc gives memory of large tensors back to the kernel at once, and each step pays for it again in page faults.
    """
    torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")
    if device.type == "cuda":
        # TF32. Set for one backend alone, get_float32_matmul_precision would raise from then on.
        torch.set_float32_matmul_precision("high")
    elif sys.platform == "linux":
        trim_threshold, top_pad, mmap_threshold = -1, -2, -3       # names of malloc.h
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            for option, value in ((mmap_threshold, 2**31 - 1), (trim_threshold, 2**31 - 1), (top_pad, 2**28)):
                libc.mallopt(option, value)


def describe(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"


def matrix_flops_per_second(device: torch.device, size: int = 512, seconds: float = 0.2) -> float:
    """Floating-point operations per second of square matrix products in the precision that training would use."""
    precision = choose_precision(device)
    a = torch.randn(size, size, device=device).to(precision)
    for _ in range(3):
        a @ a
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        (a @ a).sum().item()
        count += 1
    return 2 * size**3 * count / (time.perf_counter() - start)
