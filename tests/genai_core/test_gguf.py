"""GGUF files: the weights that were written, the tokenizer that encodes as ours does, and llama.cpp's greedy tokens."""

import httpx
import numpy as np
import pytest
import torch

from genai_core.errors import InputError
from genai_core.export.gguf import write_gguf
from genai_core.inference.generate import generate
from genai_core.models.transformer import Transformer, TransformerConfig

gguf = pytest.importorskip("gguf")

SHAPE = TransformerConfig(vocab_size=0, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
                          num_key_value_heads=2, head_dim=32, intermediate_size=96, max_position_embeddings=128)


@pytest.fixture(scope="module")
def model(tokenizer):
    """A model whose blocks do something, unlike those of a new one."""
    torch.manual_seed(0)
    made = Transformer(TransformerConfig(**{**SHAPE.to_dict(), "vocab_size": tokenizer.get_vocab_size()}))
    for parameter in made.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.2)
    return made.eval()


def tensors(path) -> dict[str, np.ndarray]:
    return {tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            for tensor in gguf.GGUFReader(path).tensors}


@pytest.mark.parametrize(("form", "error", "share"), [
    ("F32", 0, 1.0), ("F16", 1e-3, 0.51), ("Q8_0", 0.01, 0.27), ("Q4_0", 0.15, 0.27)])
def test_weights_are_those_of_the_model_up_to_rounding(model, tokenizer_dir, tmp_path, form, error, share):
    write_gguf(model, tokenizer_dir, tmp_path / "model.gguf", form)
    found = tensors(tmp_path / "model.gguf")
    weights = dict(model.named_parameters())
    assert len(found) == len(weights)
    pairs = {"token_embd.weight": "model.embed_tokens.weight",
             "blk.1.attn_q.weight": "model.layers.1.self_attn.q_proj.weight",
             "blk.0.ffn_down.weight": "model.layers.0.mlp.down_proj.weight", "output_norm.weight": "model.norm.weight"}
    for theirs, ours in pairs.items():
        weight = weights[ours].detach().numpy()
        assert np.abs(found[theirs] - weight).max() <= error * np.abs(weight).max()
    stored = sum(tensor.n_bytes for tensor in gguf.GGUFReader(tmp_path / "model.gguf").tensors)
    assert stored <= share * 4.001 * sum(weight.numel() for weight in weights.values())
    assert not list(tmp_path.glob("*.part"))


def test_a_width_that_blocks_do_not_divide_is_told(tokenizer_dir, tmp_path):
    narrow = Transformer(TransformerConfig(**{**SHAPE.to_dict(), "vocab_size": 700, "hidden_size": 48}))
    with pytest.raises(InputError, match=r"Q8_0 cuts rows into blocks of 32 weights, and a layer .* is 48 wide"):
        write_gguf(narrow, tokenizer_dir, tmp_path / "model.gguf", "Q8_0")


def test_llama_cpp_encodes_and_writes_what_we_do(model, tokenizer, tokenizer_dir, prose, tmp_path):
    xllamacpp = pytest.importorskip("xllamacpp")
    write_gguf(model, tokenizer_dir, tmp_path / "model.gguf", "F32")
    settings = xllamacpp.CommonParams()
    settings.model.path, settings.n_ctx, settings.n_parallel, settings.port = str(tmp_path / "model.gguf"), 128, 1, 0
    server = xllamacpp.Server(settings)
    for text in (prose[0][:80], "I'm here, 12 times: it's done.\n\n  Naïve café — 日本語!"):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        wanted = generate(model, [ids], 50, set(), pad_id=0).ids[0].tolist()
        for prompt in (ids, text):
            answer = httpx.post(f"{server.listening_address}/completion", timeout=60, json={
                "prompt": prompt, "n_predict": 50, "temperature": 0, "ignore_eos": True, "return_tokens": True})
            assert answer.json()["tokens"] == wanted
