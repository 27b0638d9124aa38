"""Generation: a batch of unequal prompts equals each alone, and sampling stays inside what it may choose."""

import pytest
import torch

from genai_core.inference.generate import Sampling, choose, generate, stream
from genai_core.inference.likelihood import answer_log_probs

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
    torch.manual_seed(3)
    done = generate(tiny_model, PROMPTS[:1], 10, set(), pad_id=0, sampling=Sampling(temperature=0.7))
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


def test_sampling_stays_within_top_k_and_top_p():
    logits = torch.tensor([[2.0, 1.0, 0.5, -1.0, -2.0]]).repeat(500, 1)
    torch.manual_seed(0)
    assert set(choose(logits, Sampling(1.0, top_k=2), None)[0].tolist()) == {0, 1}
    assert set(choose(logits, Sampling(1.0, top_p=0.5), None)[0].tolist()) == {0}
    assert set(choose(logits, Sampling(1.0), None)[0].tolist()) == {0, 1, 2, 3, 4}


def test_an_empty_prompt_is_refused(tiny_model):
    with pytest.raises(ValueError, match="at least one token"):
        generate(tiny_model, [[1], []], 4, set(), pad_id=0)
