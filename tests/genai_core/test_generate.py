"""Generation: a batch of unequal prompts equals each alone, and sampling stays inside what it may choose."""

from collections import Counter

import pytest
import torch
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from genai_core.families.recurrent.model import RecurrentLanguageModel, RecurrentShape
from genai_core.inference.engine import Engine
from genai_core.inference.generate import collected, generate, stream, text_pieces
from genai_core.inference.likelihood import answer_log_probs
from genai_core.inference.sampling import Sampling, choose

PROMPTS = [[5, 9, 300], [17], [42, 43, 44, 45, 46, 47, 48]]


def naive(model, prompt, tokens):
    ids = list(prompt)
    for _ in range(tokens):
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt):]


def test_greedy_with_cache_and_padding_equals_naive_one_by_one(tiny_model):
    batch = generate(tiny_model, PROMPTS, 20, set(), pad_id=0)
    for row, prompt in zip(batch.ids.tolist(), PROMPTS, strict=True):
        assert row == naive(tiny_model, prompt, 20)


def test_streaming_gives_the_same_tokens_and_stops_at_the_end(tiny_model):
    wanted = naive(tiny_model, PROMPTS[0], 20)
    assert list(stream(tiny_model, PROMPTS[0], 20, set())) == wanted
    end = wanted[6]
    assert list(stream(tiny_model, PROMPTS[0], 20, {end})) == wanted[:wanted.index(end)]


def test_the_end_token_is_kept_and_what_follows_is_masked(tiny_model):
    end = naive(tiny_model, PROMPTS[0], 8)[3]
    done = generate(tiny_model, PROMPTS, 8, {end}, pad_id=0)
    first = done.ids[0].tolist().index(end)
    assert done.mask[0].tolist() == [True] * (first + 1) + [False] * (done.ids.shape[1] - first - 1)
    assert done.log_probs[0, first + 1:].abs().sum() == 0


def test_log_probabilities_are_those_of_the_model_at_that_temperature(tiny_model):
    done = generate(tiny_model, PROMPTS[:1], 10, set(), pad_id=0, sampling=Sampling(0.7), seeds=[3])
    ids = torch.tensor([PROMPTS[0] + done.ids[0].tolist()])
    logits = tiny_model(ids)[0, len(PROMPTS[0]) - 1:-1] / 0.7
    wanted = torch.log_softmax(logits, -1).gather(-1, done.ids[0][:, None])[:, 0]
    assert torch.allclose(done.log_probs[0], wanted, atol=1e-4)


def test_answers_are_as_likely_in_a_batch_as_alone_and_long_ones_lose_their_beginning(tiny_model):
    prompts = [*PROMPTS, [7] * (tiny_model.context_length - 1), [3]]
    answers = [[8, 9], [300], [5, 6, 7, 8], [9, 9, 9], [4] * (tiny_model.context_length + 2)]
    batch = answer_log_probs(tiny_model, prompts, answers)
    for prompt, answer, together in zip(prompts, answers, batch.tolist(), strict=True):
        row = (prompt + answer)[-tiny_model.context_length:]
        log_probs = torch.log_softmax(tiny_model(torch.tensor([row]))[0].detach(), -1)
        first = max(len(row) - len(answer), 1)
        assert together == pytest.approx(
            sum(float(log_probs[place - 1, row[place]]) for place in range(first, len(row))), abs=1e-3)


def test_a_prompt_that_loses_its_beginning_keeps_the_start_of_a_document(tiny_model):
    length, long = tiny_model.context_length, [1, *[7] * 500]
    kept = answer_log_probs(tiny_model, [[1, *[7] * (length - 3)]], [[8, 9]])
    assert answer_log_probs(tiny_model, [long], [[8, 9]], start=[1]) == pytest.approx(kept, abs=1e-5)
    assert answer_log_probs(tiny_model, [long], [[8, 9]]) != pytest.approx(kept, abs=1e-5)


LOGITS = torch.tensor([2.0, 1.0, 0.5, -1.0, -2.0])
ROWS = 4000


def chosen(sampling: Sampling, seen: list[int] | None = None) -> tuple[Counter[int], dict[int, float]]:
    """How often each token is chosen, and how likely it is said to be."""
    rows = LOGITS.repeat(ROWS, 1)
    there = torch.zeros(ROWS, len(LOGITS), dtype=torch.bool)
    there[:, seen or []] = True
    drawn = torch.rand(ROWS, generator=torch.Generator().manual_seed(0))
    tokens, log_probs = choose(rows, sampling, drawn, there)
    return Counter(tokens.tolist()), {int(token): float(value.exp())
                                      for token, value in zip(tokens, log_probs, strict=True)}


@pytest.mark.parametrize(("sampling", "seen", "processors"), [
    (Sampling(1.0), [], []),
    (Sampling(0.7), [], [TemperatureLogitsWarper(0.7)]),
    (Sampling(1.0, top_k=2), [], [TopKLogitsWarper(2)]),
    (Sampling(1.0, top_p=0.8), [], [TopPLogitsWarper(0.8)]),
    (Sampling(1.0, min_p=0.2), [], [MinPLogitsWarper(0.2)]),
    (Sampling(1.0, repetition_penalty=1.5), [0, 3], [RepetitionPenaltyLogitsProcessor(1.5)]),
    (Sampling(1.5, top_k=4, top_p=0.9), [],
     [TemperatureLogitsWarper(1.5), TopKLogitsWarper(4), TopPLogitsWarper(0.9)])])
def test_tokens_are_drawn_from_the_distribution_that_transformers_draws_from(sampling, seen, processors):
    scores = LOGITS[None]
    for processor in processors:
        scores = processor(torch.tensor([seen]), scores)
    wanted = torch.softmax(scores[0], -1)
    counts, said = chosen(sampling, seen)
    assert set(counts) == set(wanted.nonzero()[:, 0].tolist())
    for token, count in counts.items():
        assert said[token] == pytest.approx(float(wanted[token]), rel=1e-4)
        assert count / ROWS == pytest.approx(float(wanted[token]), abs=0.03)


def test_a_number_at_the_very_end_falls_to_a_token_that_may_be_chosen():
    token, log_prob = choose(LOGITS[None], Sampling(1.0, top_k=2), torch.tensor([1.0]))
    assert int(token) == 1 and torch.isfinite(log_prob).all()


MANY = [*PROMPTS, [8, 8], *PROMPTS, [600, 3, 5, 9, 11], [17]]


@pytest.mark.parametrize("slots", [1, 2, 5, 9])
def test_prompts_that_wait_for_a_slot_become_what_they_become_alone(tiny_model, slots):
    ends = {naive(tiny_model, prompt, 6)[3] for prompt in MANY[:3]}      # some end early, some do not
    done = generate(tiny_model, MANY, 12, ends, pad_id=0, slots=slots)
    for row, prompt in zip(done.unpadded(), MANY, strict=True):
        wanted = naive(tiny_model, prompt, 12)
        end = next((place + 1 for place, token in enumerate(wanted) if token in ends), 12)
        assert row == wanted[:end]


@pytest.mark.parametrize("slots", [1, 3, 9])
def test_a_seed_makes_the_same_tokens_whatever_is_beside_it(tiny_model, slots):
    sampling = Sampling(1.0, top_k=50, repetition_penalty=1.2)
    seeds = list(range(len(MANY)))
    together = generate(tiny_model, MANY, 12, set(), pad_id=0, sampling=sampling, seeds=seeds, slots=slots)
    for row, prompt, seed in zip(together.unpadded(), MANY, seeds, strict=True):
        assert row == list(stream(tiny_model, prompt, 12, set(), sampling, seed))


def test_a_prompt_that_many_share_is_read_once(tiny_model, monkeypatch):
    read, original = [], tiny_model.read
    monkeypatch.setattr(tiny_model, "read", lambda ids, *rest: read.append(len(ids)) or original(ids, *rest))
    done = generate(tiny_model, [PROMPTS[2]] * 6 + [PROMPTS[0]], 4, set(), pad_id=0, sampling=Sampling(1.0),
                    seeds=list(range(7)))
    assert read == [2] and len({tuple(row) for row in done.unpadded()}) > 4


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_recurrent_models_decode_in_slots_as_they_read(cell):
    torch.manual_seed(0)
    model = RecurrentLanguageModel(RecurrentShape(cell, 700, 16, 24, 2, 32)).eval()
    done = generate(model, MANY, 12, set(), pad_id=0, slots=4)
    for row, prompt in zip(done.unpadded(), MANY, strict=True):
        assert row == naive(model, prompt, 12)


@pytest.mark.slow
def test_a_compiled_engine_writes_what_the_plain_one_does(tiny_model):
    engine = Engine(tiny_model, 4, 20, new_tokens=12, end_ids=set(), pad_id=0, compiled=True)
    for _ in range(2):      # slots are used again
        done = collected(engine, engine.run(MANY))
        assert done.unpadded() == generate(tiny_model, MANY, 12, set(), pad_id=0).unpadded()


def test_a_prompt_without_room_is_refused(tiny_model):
    engine = Engine(tiny_model, 1, 10, new_tokens=8, end_ids=set(), pad_id=0)
    with pytest.raises(ValueError, match="a prompt of 3 tokens and 8 new ones do not fit into 10 places"):
        list(engine.run([[1, 2, 3]]))


@pytest.mark.parametrize(("stops", "wanted"), [
    ((), "one two three"), (("two",), "one "), (("three!", "e t"), "on"), (("x",), "one two three"),
    (("three four",), "one two three")])
def test_text_ends_before_a_stop_and_holds_back_its_beginning(tokenizer, stops, wanted):
    ids = tokenizer.encode("one two three", add_special_tokens=False).ids
    assert "".join(text_pieces(tokenizer, iter(ids), stops)) == wanted


def test_an_empty_prompt_is_refused(tiny_model):
    with pytest.raises(ValueError, match="at least one token"):
        generate(tiny_model, [[1], []], 4, set(), pad_id=0)
