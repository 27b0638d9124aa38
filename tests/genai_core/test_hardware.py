"""What a machine offers decides device, precision and compilation; the probes are faked."""

import pytest
import torch

from genai_core import hardware
from genai_core.errors import InputError
from genai_core.hardware import choose_device, choose_precision, prepare
from genai_core.training import compilation


@pytest.fixture
def probes(monkeypatch):
    def fake(cuda=False, mps=False, amx=False, avx512_bf16=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)

    return fake


@pytest.mark.parametrize(("there", "chosen"), [
    ({}, "cpu"), ({"mps": True}, "mps"), ({"cuda": True}, "cuda"), ({"cuda": True, "mps": True}, "cuda")])
def test_auto_takes_the_gpu_that_is_there(probes, there, chosen):
    probes(**there)
    assert choose_device("auto").type == chosen
    assert choose_device("cpu").type == "cpu"


@pytest.mark.parametrize("wanted", ["cuda", "mps"])
def test_a_gpu_that_is_not_there_is_refused(probes, wanted):
    probes()
    with pytest.raises(InputError, match=f"runtime.device: {wanted} was asked for"):
        choose_device(wanted)


@pytest.mark.parametrize(("there", "precision"), [
    ({}, torch.float32), ({"amx": True}, torch.bfloat16), ({"avx512_bf16": True}, torch.bfloat16)])
def test_a_cpu_trains_in_bfloat16_where_it_multiplies_it(probes, there, precision):
    probes(**there)
    assert choose_precision(torch.device("cpu")) is precision


def test_a_mac_trains_in_float32_without_compilation(probes):
    probes(mps=True)
    device = choose_device("auto")
    assert choose_precision(device) is torch.float32

    class Long:
        fixed_shapes, flops = True, 1e30

    assert not compilation.pays(Long(), "auto", device)
    assert compilation.pays(Long(), "on", device)


def test_the_allocator_is_left_alone_where_it_is_not_glibc(monkeypatch):
    monkeypatch.setattr(hardware.sys, "platform", "darwin")
    monkeypatch.setattr(hardware.ctypes, "CDLL", lambda *_: pytest.fail("no glibc there"))
    prepare(torch.device("cpu"))


@pytest.mark.parametrize(("device", "wanted", "on"), [
    ("cpu", "auto", True), ("cuda", "auto", False), ("cuda", "on", True), ("cpu", "off", False)])
def test_deterministic_kernels_are_the_default_of_a_cpu_alone(monkeypatch, device, wanted, on):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    try:
        prepare(torch.device(device), wanted)
        assert torch.are_deterministic_algorithms_enabled() is on
        assert not torch.utils.deterministic.fill_uninitialized_memory, "all new memory would be written twice"
    finally:
        torch.set_float32_matmul_precision("highest")
        torch.use_deterministic_algorithms(False)
