"""K-quants of llama.cpp's own program: what it makes is near the model, and what it cannot make is one line."""

import os
import shutil

import numpy as np
import pytest
import torch

from genai_core.errors import InputError
from genai_core.export.handover import export
from genai_core.export.llama_quantize import PROGRAM, VARIABLE
from genai_core.export.model_directory import save_model
from genai_core.models.transformer import Transformer, TransformerConfig

gguf = pytest.importorskip("gguf")

needs_program = pytest.mark.skipif(shutil.which(os.environ.get(VARIABLE) or PROGRAM) is None,
                                   reason=f"needs {PROGRAM} of llama.cpp, on PATH or named by {VARIABLE}")


@pytest.fixture
def directory(tokenizer, tokenizer_dir, tmp_path):
    """A model directory of a width."""
    def of(width):
        torch.manual_seed(0)
        model = Transformer(TransformerConfig(vocab_size=tokenizer.get_vocab_size(), hidden_size=width,
                                              num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                                              head_dim=64, intermediate_size=2 * width, max_position_embeddings=64))
        for parameter in model.parameters():
            if parameter.dim() == 2:
                torch.nn.init.normal_(parameter, std=0.1)
        (tmp_path / "model").mkdir()
        save_model(model, tokenizer_dir, tmp_path / "model")
        return tmp_path / "model", model

    return of


@pytest.fixture
def quantizer(tmp_path, monkeypatch):
    """A program of these lines of shell in place of llama.cpp's."""
    def of(script):
        path = tmp_path / "quantizer"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv(VARIABLE, str(path))

    return of


@needs_program
def test_a_k_quant_is_near_the_model(directory, tmp_path):
    where, model = directory(256)
    export(where, tmp_path / "out", "gguf", "A card.", "Q4_K_M")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["Modelfile", "README.md", "model.gguf"]
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "out" / "model.gguf").tensors}
    kinds = {tensor.tensor_type.name for tensor in tensors.values()}
    assert kinds == {"Q4_K", "Q6_K", "F32"}
    stored = tensors["blk.0.ffn_up.weight"]
    weight = model.get_parameter("model.layers.0.mlp.up_proj.weight").detach().numpy()
    difference = gguf.quants.dequantize(stored.data, stored.tensor_type) - weight
    assert np.sqrt((difference ** 2).mean()) < 0.1 * weight.std()


def test_a_width_without_whole_blocks_is_told(directory, tmp_path, quantizer):
    quantizer("exit 0")
    with pytest.raises(InputError, match=r"Q4_K_M cuts rows into blocks of 256 weights, .* (64|128) wide"):
        export(directory(64)[0], tmp_path / "out", "gguf", "", "Q4_K_M")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("form", "k_quant", "message"), [
    ("gguf", "Q9_K", "there is no K-quant 'Q9_K'; choose one of Q2_K, "),
    ("huggingface", "Q4_K_M", "Q4_K_M is a format of weights in GGUF files; the form huggingface has none"),
    ("gguf", "Q4_K_M", "there is no llama-quantize on PATH"),
])
def test_what_cannot_be_made_is_one_line(directory, tmp_path, monkeypatch, form, k_quant, message):
    monkeypatch.setenv(VARIABLE, "/nowhere/llama-quantize")
    with pytest.raises(InputError, match=message):
        export(directory(256)[0], tmp_path / "out", form, "", k_quant)


def test_a_program_that_fails_is_quoted(directory, tmp_path, quantizer):
    quantizer("echo loading; echo 'no space left on device' >&2; exit 3")
    with pytest.raises(InputError, match=r"made no Q4_K_M \(exit code 3\): no space left on device"):
        export(directory(256)[0], tmp_path / "out", "gguf", "", "Q4_K_M")
    assert not (tmp_path / "out").exists()
