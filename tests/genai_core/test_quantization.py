"""Quantization: bounded error, the fast product equals the plain one, directories load or say why not."""

import pytest
import torch
from safetensors.torch import load_file

from genai_core.errors import InputError
from genai_core.inference.generate import Sampling
from genai_core.models.kinds import open_model
from genai_core.quantization.compensation import second_moments
from genai_core.quantization.directory import load_quantized, quantize_to_directory
from genai_core.quantization.weights import (
    QuantizedLinear,
    dequantize_int4,
    dequantize_int8,
    quantize_int4,
    quantize_int8,
)

CPU = torch.device("cpu")


def test_int8_is_within_half_a_step():
    torch.manual_seed(0)
    weight = torch.randn(64, 96)
    values, scale = quantize_int8(weight)
    assert ((dequantize_int8(values, scale) - weight).abs() <= scale[:, None] / 2 + 1e-6).all()


def test_int4_beats_the_plain_range_and_packs_two_to_a_byte():
    torch.manual_seed(0)
    weight = torch.randn(64, 96)
    packed, scale, minimum = quantize_int4(weight, 32)
    assert packed.shape == (64, 48) and packed.dtype == torch.uint8
    error = (dequantize_int4(packed, scale, minimum) - weight).pow(2).mean()
    groups = weight.view(64, 3, 32)
    low, high = groups.amin(2, keepdim=True), groups.amax(2, keepdim=True)
    plain = (torch.round((groups - low) / (high - low) * 15) / 15 * (high - low) + low - groups).pow(2).mean()
    assert error <= plain * 1.01


def test_constant_and_zero_rows_survive():
    for weight in (torch.zeros(8, 32), torch.full((8, 32), 0.25)):
        assert torch.allclose(dequantize_int8(*quantize_int8(weight)), weight, atol=1e-3)
        assert torch.allclose(dequantize_int4(*quantize_int4(weight, 32)), weight, atol=1e-3)
        assert torch.allclose(dequantize_int4(*quantize_int4(weight, 32, torch.zeros(32, 32))), weight, atol=1e-3)


def test_rounding_for_the_inputs_of_a_layer_keeps_more_of_its_outputs():
    torch.manual_seed(0)
    weight, x = torch.randn(64, 288), torch.randn(4096, 24) @ torch.randn(24, 288)      # more than one block of columns
    before = weight.clone()
    loss = [(x @ (dequantize_int4(*quantize_int4(weight, 32, moment)) - weight).T).pow(2).mean()
            for moment in (None, x.T @ x / len(x))]
    assert loss[1] < loss[0] / 4 and torch.equal(weight, before)


def test_without_correlated_inputs_each_weight_is_rounded_by_itself():
    torch.manual_seed(0)
    weight = torch.randn(16, 160)
    for plain, corrected in zip(quantize_int4(weight, 32), quantize_int4(weight, 32, torch.eye(160)), strict=True):
        assert torch.equal(plain, corrected)


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


def test_groups_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="groups of 32"):
        quantize_int4(torch.zeros(4, 40), 32)


@pytest.mark.parametrize("rows", [1, 7, 200])
def test_the_int8_product_equals_the_one_with_widened_weights(rows):
    torch.manual_seed(0)
    values, scale = quantize_int8(torch.randn(64, 96))
    layer = QuantizedLinear({"weight_int8": values, "weight_scale": scale})
    x = torch.randn(rows, 96)
    assert torch.allclose(layer(x), x @ dequantize_int8(values, scale).T, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("bits", "bound"), [(8, 0.05), (4, 0.6)])
def test_a_quantized_directory_answers_nearly_as_the_model(tiny_model, tokenizer_dir, tmp_path, bits, bound):
    quantize_to_directory(tiny_model, bits, 32, tokenizer_dir, tmp_path)
    quantized = load_quantized(tmp_path, CPU)
    ids = torch.randint(0, 700, (2, 40))
    wanted, got = (torch.log_softmax(model(ids), -1) for model in (tiny_model, quantized))
    assert (wanted.exp() * (wanted - got)).sum(-1).mean() < bound
    tensors = load_file(tmp_path / "model.safetensors").values()
    stored = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    full = 4 * sum(parameter.numel() for parameter in tiny_model.parameters())
    assert stored < full * 0.30
    opened = open_model(tmp_path, torch.device("cpu"))
    assert isinstance("".join(opened.chat([{"role": "user", "content": "Hi"}], 5, Sampling())), str)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_damaged_directory_is_one_clear_error(tiny_model, tokenizer_dir, tmp_path, file, damage):
    quantize_to_directory(tiny_model, 8, 32, tokenizer_dir, tmp_path)
    path = tmp_path / file
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(InputError, match=file.replace(".", r"\.")):
        open_model(tmp_path, torch.device("cpu"))


@pytest.mark.parametrize("content", ["[]", "null", "5", '"x"', "[" * 100_000, "{}"])
def test_a_config_that_is_none_is_one_clear_error(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match=r"config\.json: not"):
        open_model(tmp_path, torch.device("cpu"))
