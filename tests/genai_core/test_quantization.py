"""Quantization: bounded error, bytes that the library of GGUF reads, directories that load or say why not."""

import json
import sys

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFWriter, quants
from safetensors.torch import save_file

from genai_core.errors import InputError
from genai_core.export.gguf import EMBEDDING, NAMES, read_gguf, tensor_bytes
from genai_core.export.model_directory import save_config
from genai_core.inference.sampling import Sampling
from genai_core.models.kinds import open_model
from genai_core.quantization.blocks import LEVELS, quantize_4_bits
from genai_core.quantization.compensation import second_moments
from genai_core.quantization.directory import load_quantized, quantize_to_directory
from genai_core.quantization.speed import measure_speed

CPU = torch.device("cpu")
FOUR = sorted(LEVELS)


def widened(packed: np.ndarray, form: str) -> torch.Tensor:
    """The weights as the library of GGUF reads them."""
    return torch.from_numpy(quants.dequantize(packed, GGMLQuantizationType[form]))


@pytest.mark.parametrize("form", FOUR)
def test_four_bits_take_eighteen_bytes_for_32_weights_and_lose_no_more_than_the_plain_rule(form):
    torch.manual_seed(0)
    weight = torch.randn(64, 96)
    packed = quantize_4_bits(weight, form)
    assert packed.shape == (64, 3 * 18) and packed.dtype == np.uint8
    plain = widened(quants.quantize(weight.numpy(), GGMLQuantizationType.Q4_0), "Q4_0")
    lost, allowed = ((each - weight).pow(2).mean().item() for each in (widened(packed, form), plain))
    assert lost < allowed


@pytest.mark.parametrize("form", FOUR)
@pytest.mark.parametrize("value", [0.0, 0.25, -3.0])
def test_constant_rows_survive(form, value):
    weight = torch.full((8, 32), value)
    for moment in (None, torch.zeros(32, 32), torch.eye(32)):
        assert torch.allclose(widened(quantize_4_bits(weight, form, moment), form), weight, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("form", FOUR)
def test_rounding_for_the_inputs_of_a_layer_keeps_more_of_its_outputs(form):
    torch.manual_seed(0)
    weight, x = torch.randn(64, 288), torch.randn(4096, 24) @ torch.randn(24, 288)      # more than one block of columns
    before = weight.clone()
    loss = [(x @ (widened(quantize_4_bits(weight, form, moment), form) - weight).T).pow(2).mean()
            for moment in (None, x.T @ x / len(x))]
    assert loss[1] < loss[0] / 4 and torch.equal(weight, before)


def test_without_correlated_inputs_each_weight_is_rounded_by_itself():
    torch.manual_seed(0)
    weight = torch.randn(16, 160)
    for form in FOUR:
        assert np.array_equal(quantize_4_bits(weight, form), quantize_4_bits(weight, form, torch.eye(160)))


def test_second_moments_count_tokens_and_not_padding(tiny_model):
    ids = torch.randint(0, 700, (2, 12))
    segments = torch.tensor([[1] * 12, [1] * 5 + [0] * 7])
    batch = {"ids": ids, "segments": segments, "position_ids": torch.arange(12).expand(2, 12)}
    rows = [{name: value[:1] for name, value in batch.items()},
            {name: value[1:, :5] for name, value in batch.items()}]
    together, apart = second_moments(tiny_model, [batch]), second_moments(tiny_model, rows)
    assert set(together) == {name for name, module in tiny_model.named_modules() if isinstance(module, torch.nn.Linear)}
    for name, moment in together.items():
        assert torch.allclose(moment, apart[name], rtol=1e-4, atol=1e-5)


def test_blocks_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="blocks of 32"):
        quantize_4_bits(torch.zeros(4, 40), "Q4_0")


@pytest.mark.parametrize(("form", "bound", "size"),
                         [("Q8_0", 0.05, 0.27), ("Q4_0", 0.6, 0.145), ("IQ4_NL", 0.6, 0.145)])
def test_a_quantized_directory_answers_nearly_as_the_model(tiny_model, tokenizer_dir, tmp_path, form, bound, size):
    quantize_to_directory(tiny_model, form, tokenizer_dir, tmp_path)
    quantized = load_quantized(tmp_path, CPU)
    ids = torch.randint(0, 700, (2, 40))
    wanted, got = (torch.log_softmax(model(ids), -1) for model in (tiny_model, quantized))
    assert (wanted.exp() * (wanted - got)).sum(-1).mean() < bound
    stored = tensor_bytes(tmp_path / "model.gguf")
    layers = sum(stored.values()) - stored[NAMES[EMBEDDING]]
    full = 4 * sum(parameter.numel() for name, parameter in tiny_model.named_parameters() if name != EMBEDDING)
    norms = 4 * sum(parameter.numel() for parameter in tiny_model.parameters() if parameter.dim() == 1)
    assert (layers - norms) / (full - norms) < size
    opened = open_model(tmp_path, CPU)
    assert isinstance("".join(opened.chat([{"role": "user", "content": "Hi"}], 5, Sampling())), str)


def test_transformers_reads_the_file_to_the_same_weights(tiny_model, tokenizer_dir, tmp_path):
    transformers = pytest.importorskip("transformers")
    quantize_to_directory(tiny_model, "Q8_0", tokenizer_dir, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="model.gguf", config=transformers.AutoConfig.from_pretrained(tmp_path), dtype=torch.float32)
    ids = torch.randint(0, 700, (2, 24))
    with torch.no_grad():
        assert torch.allclose(theirs(ids).logits, load_quantized(tmp_path, CPU)(ids), atol=1e-4)


@pytest.mark.parametrize("file", ["config.json", "model.gguf", "tokenizer.json"])
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_damaged_directory_is_one_clear_error(tiny_model, tokenizer_dir, tmp_path, file, damage):
    quantize_to_directory(tiny_model, "Q8_0", tokenizer_dir, tmp_path)
    path = tmp_path / file
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(InputError, match=file.replace(".", r"\.")):
        open_model(tmp_path, CPU)


@pytest.mark.parametrize("kept", [0, 8, 200, 5_000, -1, -500])
def test_a_file_that_is_cut_off_anywhere_is_refused(tiny_model, tokenizer_dir, tmp_path, kept):
    quantize_to_directory(tiny_model, "Q8_0", tokenizer_dir, tmp_path)
    path = tmp_path / "model.gguf"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"model\.gguf"):
        read_gguf(path)


def test_a_file_of_another_architecture_is_refused(tmp_path):
    writer = GGUFWriter(tmp_path / "other.gguf", "llama")
    writer.add_block_count(1)
    writer.add_tensor("token_embd.weight", np.zeros((4, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(InputError, match="architecture llama; this project reads qwen3"):
        read_gguf(tmp_path / "other.gguf")


def test_directories_of_before_are_still_read(tiny_model, tokenizer_dir, tmp_path):
    """Eight bits by row, four bits by groups of 16 with a minimum: layouts that releases in service may have."""
    wanted, stored = {}, {}
    for name, parameter in tiny_model.named_parameters():
        module, weight = name.removesuffix(".weight"), parameter.detach()
        if weight.dim() == 1:
            stored[name] = wanted[name] = weight.clone()
        elif name == EMBEDDING:
            scale = weight.abs().amax(1) / 127
            values = (weight / scale[:, None]).round().to(torch.int8)
            stored |= {f"{module}.weight_int8": values, f"{module}.weight_scale": scale}
            wanted[name] = values.float() * scale[:, None]
        else:
            groups = weight.view(len(weight), -1, 16)
            minimum = groups.amin(2).half()
            scale = ((groups.amax(2) - groups.amin(2)) / 15).half()
            values = ((groups - minimum.float()[..., None]) / scale.float()[..., None]).round().clamp(0, 15)
            flat = values.view(weight.shape).to(torch.uint8)
            stored |= {f"{module}.weight_int4": flat[:, 0::2] | (flat[:, 1::2] << 4), f"{module}.weight_scale": scale,
                       f"{module}.weight_minimum": minimum}
            wanted[name] = (values * scale.float()[..., None] + minimum.float()[..., None]).view(weight.shape)
    save_config(tiny_model.config, "quantized_language_model", tokenizer_dir, tmp_path)
    save_file(stored, tmp_path / "model.safetensors")
    (tmp_path / "quantization.json").write_text(json.dumps({"bits": 4}))
    for name, parameter in load_quantized(tmp_path, CPU).named_parameters():
        assert torch.allclose(parameter, wanted[name], atol=1e-6), name
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"model\.safetensors: the weights do not fit"):
        load_quantized(tmp_path, CPU)


def test_speed_in_llama_cpp_is_told_and_what_it_cannot_read_is_one_line(tiny_model, tokenizer_dir, tmp_path):
    quantize_to_directory(tiny_model, "IQ4_NL", tokenizer_dir, tmp_path)
    found = measure_speed(tmp_path / "model.gguf", 8, 1)
    assert found["tokens_per_second"] > 0 and found["tokens_per_second_32"] > 0 and found["peak_bytes"] > 0
    (tmp_path / "none.gguf").write_bytes(b"none")
    with pytest.raises(InputError, match=r"llama\.cpp does not run here"):
        measure_speed(tmp_path / "none.gguf", 8, 1)


def test_a_missing_llama_cpp_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(InputError, match=r"llama.cpp does not run here \(exit status 1\)"):
        measure_speed(tmp_path / "model.gguf", 8, 1)


@pytest.mark.parametrize("content", ["[]", "null", "5", '"x"', "[" * 100_000, "{}"])
def test_a_config_that_is_none_is_one_clear_error(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match=r"config\.json: not"):
        open_model(tmp_path, CPU)
