"""Cells equal PyTorch's; what is decoded step by step equals what is decoded at once; padding changes nothing."""

import math

import pytest
import torch

from genai_core.config.data import CollectConfig, RandomTextSource, TokenizeConfig
from genai_core.context import Context
from genai_core.families.characters import HeldOutCharacters
from genai_core.families.encoder_decoder.interface import greedy_decode
from genai_core.families.encoder_decoder.recurrent import RecurrentSeq2Seq, Seq2SeqShape
from genai_core.families.encoder_decoder.transformer import T5, RelativeBias, T5Shape
from genai_core.families.positions.model import PositionalLanguageModel, PositionalShape
from genai_core.families.recurrent import objective as recurrent
from genai_core.families.recurrent.config import RecurrentConfig
from genai_core.families.recurrent.model import LAYERS, RecurrentLanguageModel, RecurrentShape, RecurrentStack
from genai_core.inference.generate import generate
from genai_core.inference.text import open_text_model
from genai_core.stages import collect, tokenize

TORCH = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}
CELLS = sorted(TORCH)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("fused", [False, True])
def test_cells_equal_those_of_torch(cell, layers, fused):
    torch.manual_seed(0)
    ours, theirs = RecurrentStack(cell, 7, 11, layers, fused), TORCH[cell](7, 11, layers, batch_first=True)
    for number, layer in enumerate(ours.layers):
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            getattr(theirs, f"{name}_l{number}").data.copy_(getattr(layer, name))
    inputs = torch.randn(4, 9, 7)
    outputs, states = ours(inputs)
    expected, last = theirs(inputs)
    assert torch.allclose(outputs, expected, atol=1e-6, rtol=0)
    hidden = last[0] if cell == "lstm" else last
    for number, state in enumerate(states):
        assert torch.allclose(state[0], hidden[number], atol=1e-6, rtol=0)
    outputs.square().sum().backward()
    expected.square().sum().backward()
    assert torch.allclose(ours.layers[0].weight_hh.grad, theirs.weight_hh_l0.grad, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("cell", CELLS)
def test_the_kernel_continues_from_a_state_and_computes_under_autocast(cell):
    torch.manual_seed(0)
    stack = RecurrentStack(cell, 7, 11, 2)
    inputs = torch.randn(4, 9, 7)
    results = {}
    for fused in (False, True):
        for layer in stack.layers:
            layer.fused = fused
        first, states = stack(inputs[:, :4])
        rest, _ = stack(inputs[:, 4:], states)
        # a processor without such instructions has no kernel of an LSTM, and trains in float32
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=torch.ops.mkldnn._is_mkldnn_bf16_supported()):
            _, states = stack(inputs[:, :4])
            low, _ = stack(inputs[:, 4:], states)
        results[fused] = torch.cat([first, rest], dim=1), low.float()
    assert torch.allclose(results[True][0], results[False][0], atol=1e-6)
    assert torch.allclose(results[True][1], results[False][1], atol=0.02)


def language_models():
    for cell in CELLS:
        yield RecurrentLanguageModel(RecurrentShape(cell, 50, 8, 16, 2, 32))
    for positions in ("sinusoidal", "learned", "rotary", "none"):
        yield PositionalLanguageModel(PositionalShape(positions, 50, 32, 2, 2, 64, 32))


@pytest.mark.parametrize("number", range(7))
def test_generation_with_a_cache_equals_reading_everything_again(number):
    torch.manual_seed(number)
    model = list(language_models())[number].eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    prompts = [[3, 4, 5], [7], [9, 1, 2, 8, 6]]
    made = generate(model, prompts, 8, set(), pad_id=0)
    for prompt, row in zip(prompts, made.ids.tolist(), strict=True):      # padded on the left with the others
        ids = list(prompt)
        for token in row:
            assert int(model(torch.tensor([ids]))[0, -1].argmax()) == token
            ids.append(token)


def test_recurrent_padding_leaves_the_state_as_it_was():
    torch.manual_seed(0)
    for cell in CELLS:
        layer = LAYERS[cell](5, 6)
        inputs = torch.randn(2, 4, 5)
        attention_mask = torch.tensor([[True, True, False, False], [False, True, True, True]])
        _, state = layer(inputs, None, attention_mask)
        _, first = layer(inputs[:1, :2])
        _, second = layer(inputs[1:, 1:])
        for padded, alone in zip(state, zip(first, second, strict=True), strict=True):
            assert torch.allclose(padded, torch.cat(alone), atol=1e-6)


def pair_models():
    for attention in ("none", "bahdanau", "luong"):
        for cell in CELLS:
            yield RecurrentSeq2Seq(Seq2SeqShape(cell, attention, 40, 12, 16, 10, 10))
    yield T5(T5Shape(40, 24, 4, 2, 2, 32, 10, 10))


@pytest.mark.parametrize("number", range(10))
def test_decoding_step_by_step_equals_teacher_forcing_and_padding_changes_nothing(number):
    torch.manual_seed(number)
    model = list(pair_models())[number].eval()
    source, inputs = torch.randint(1, 40, (3, 6)), torch.randint(1, 40, (3, 5))
    attention_mask = torch.ones(3, 6, dtype=torch.bool)
    whole = model.decode(inputs, model.encode(source, attention_mask))
    state, logits = None, []
    for part in inputs.split(1, dim=1):
        decoded = model.decode(part, model.encode(source, attention_mask), state)
        state = decoded.state
        logits.append(decoded.logits)
    assert torch.allclose(torch.cat(logits, dim=1), whole.logits, atol=1e-5)
    if whole.attention is not None:
        assert torch.allclose(whole.attention.sum(-1), torch.ones(3, 5), atol=1e-5)
    padded = torch.cat([source, torch.zeros(3, 3, dtype=torch.int64)], dim=1)
    longer = torch.cat([attention_mask, torch.zeros(3, 3, dtype=torch.bool)], dim=1)
    with_padding = model.decode(inputs, model.encode(padded, longer))
    assert torch.allclose(with_padding.logits, whole.logits, atol=1e-5)
    if with_padding.attention is not None:
        assert with_padding.attention[:, :, 6:].abs().max() == 0


def test_decoding_ends_at_the_end_token_of_every_row():
    torch.manual_seed(0)
    model = next(pair_models()).eval()
    model.head.bias.data[5] = 100.0      # always the end
    source, attention_mask = torch.ones(2, 3, dtype=torch.int64), torch.ones(2, 3, dtype=torch.bool)
    ids, attention = greedy_decode(model, source, attention_mask, start=1, end=5, longest=10)
    assert ids.tolist() == [[5], [5]] and attention is None


def test_relative_bias_depends_on_the_distance_alone_and_the_decoder_sees_no_future():
    bias = RelativeBias(2, both_ways=True)
    torch.nn.init.normal_(bias.table.weight)
    table = bias(12)[0]
    for distance in range(-11, 12):
        diagonal = table.diagonal(distance, dim1=1, dim2=2)
        assert torch.equal(diagonal, diagonal[:, :1].expand_as(diagonal))
    torch.manual_seed(0)
    model = T5(T5Shape(40, 24, 4, 1, 1, 32, 10, 10)).eval()
    memory = model.encode(torch.randint(40, (1, 4)), torch.ones(1, 4, dtype=torch.bool))
    inputs = torch.randint(40, (1, 6))
    changed = inputs.clone()
    changed[0, 4] = (changed[0, 4] + 1) % 40
    before, after = model.decode(inputs, memory).logits, model.decode(changed, memory).logits
    assert torch.equal(before[:, :4], after[:, :4]) and not torch.equal(before[:, 4:], after[:, 4:])


def test_on_random_text_a_model_comes_to_its_entropy_and_not_below(tmp_path, recorder):
    config = CollectConfig(sources={"noise": RandomTextSource(documents=300, alphabet="abcdefgh")}, test_fraction=0.2,
                           validation_fraction=0.1)
    collected, tokens, model = (tmp_path / name for name in ("collected", "tokens", "model"))
    for directory in (collected, tokens, model):
        directory.mkdir()
    collect.run(config, out_dir=collected, context=Context(tmp_path, recorder, tmp_path))
    tokenize.run(TokenizeConfig(vocab_size=259, extra_sources=()), cleaned=collected, out_dir=tokens,
                 context=Context(tmp_path, recorder, tmp_path))
    training = RecurrentConfig(cell="gru", layers=1, hidden_size=16, embedding_size=8, context_length=32, batch_size=32,
                               tokens=60_000, learning_rate=0.02, evaluations=1)
    recurrent.run(training, tokens=tokens, out_dir=model, context=Context(tmp_path / "checkpoints", recorder))
    held_out = HeldOutCharacters(tokens, 50_000)
    bits = held_out.bits(open_text_model(model, torch.device("cpu")).model, torch.device("cpu"))
    assert math.log2(8) - 0.01 < bits < math.log2(8) + 0.15
    assert math.log2(8) - 0.01 < held_out.ngram_bits(2) < math.log2(8) + 0.15
