"""A prompt is read once for all of its completions, and nothing else changes."""

import pytest
import torch

from genai_core.config.training import LoraConfig
from genai_core.data.instruction.examples import Example, user_asks
from genai_core.inference import likelihood
from genai_core.inference.likelihood import answer_log_probs
from genai_core.inference.sequences import in_sequence, token_log_probs
from genai_core.models.adapters import adapters_of, add_adapters
from genai_core.models.huggingface import HuggingFaceConfig, HuggingFaceModel
from genai_core.models.reward import RewardModel, score_subjects
from tests.genai_core.bases import random_network

SIZE = 700


def wrapped(layout):
    network = random_network(layout, SIZE)
    return HuggingFaceModel(HuggingFaceConfig(network.config.to_dict()), network)


def completed(prompts, counts):
    """Sequences of so many completions of up to eight tokens to each prompt, and weights of their probabilities."""
    generator = torch.Generator().manual_seed(0)
    ids = [torch.randint(1, SIZE, (length,), generator=generator).tolist() for length in prompts]
    rows = sum(counts)
    completions = torch.randint(1, SIZE, (rows, 8), generator=generator)
    lengths = torch.randint(1, 9, (rows, 1), generator=generator)
    repeated = [prompt for prompt, count in zip(ids, counts, strict=True) for _ in range(count)]
    sequences = in_sequence(repeated, completions, torch.arange(8) < lengths, 0)
    return sequences, torch.randn(sequences["ids"][:, 1:].shape, generator=generator)


def figures(model, sequences, weights):
    model.zero_grad()
    log_probs, entropies = token_log_probs(model, sequences, 0.7)
    (log_probs * weights).sum().backward()
    return [log_probs.detach(), entropies, *(each.grad.clone() for each in model.parameters())]


@pytest.mark.parametrize("layout", ["ours", "llama", "gemma3_text", "gpt2"])
@pytest.mark.parametrize(("prompts", "counts"), [((12, 3, 7), (4, 6, 2)), ((9,), (3,)), ((5, 11), (1, 2))])
def test_a_prompt_that_is_read_once_gives_the_same_probabilities_and_gradients(
        layout, prompts, counts, tiny_model, monkeypatch):
    # Gemma's windows are shorter than these sequences
    model = tiny_model if layout == "ours" else wrapped(layout)
    sequences, weights = completed(prompts, counts)
    read = []
    hidden = type(model).hidden
    monkeypatch.setattr(type(model), "hidden", lambda self, ids, *rest: read.append(ids.numel()) or
                        hidden(self, ids, *rest))
    once = figures(model, sequences, weights)
    monkeypatch.setattr(type(model), "prompt_cache", lambda self: None)
    for ours, plain in zip(once, figures(model, sequences, weights), strict=True):
        assert torch.allclose(ours, plain, rtol=1e-4, atol=1e-4 * plain.abs().max())
    assert sum(read[:2]) < read[2]


def test_the_same_tokens_behind_padding_are_another_prompt(tiny_model):
    completions = torch.tensor([[5, 6], [5, 6]])
    together = in_sequence([[0, 9, 4], [9, 4]], completions, torch.ones(2, 2, dtype=torch.bool), 0)
    alone = in_sequence([[9, 4]], completions[:1], torch.ones(1, 2, dtype=torch.bool), 0)
    found = token_log_probs(tiny_model, together, 1.0)[0][1, -2:]
    assert torch.allclose(found, token_log_probs(tiny_model, alone, 1.0)[0][0, -2:], atol=1e-5)


@pytest.mark.parametrize("layout", ["ours", "llama", "gemma3_text", "gpt2"])
def test_a_question_is_read_once_for_all_of_its_answers_and_each_is_as_likely_as_alone(layout, tiny_model, monkeypatch):
    model = tiny_model if layout == "ours" else wrapped(layout)
    generator = torch.Generator().manual_seed(1)
    questions = [torch.randint(1, SIZE, (length,), generator=generator).tolist() for length in (12, 3, 7, 60)]
    answers = [[5, 6, 7], [8], [9, 4, 3, 2]]
    alone = [float(answer_log_probs(model, [question], [answer])) for question in questions for answer in answers]
    read = []
    hidden = type(model).hidden
    monkeypatch.setattr(type(model), "hidden", lambda self, ids, *rest: read.append(ids.numel()) or
                        hidden(self, ids, *rest))
    together = answer_log_probs(model, [question for question in questions for _ in answers], answers * len(questions))
    assert together.tolist() == pytest.approx(alone, abs=1e-3)
    assert sum(read) < 60 * len(questions) * len(answers)


def test_answers_with_many_logits_are_read_in_several_batches(tiny_model, monkeypatch):
    questions, answers = [[1, 2, 3]] * 10, [[number] * 6 for number in range(10, 20)]
    together = answer_log_probs(tiny_model, questions, answers)
    most = []
    monkeypatch.setattr(likelihood, "LOGITS_AT_ONCE", 13 * tiny_model.config.vocab_size)
    logits = type(tiny_model).logits
    monkeypatch.setattr(type(tiny_model), "logits", lambda self, states: most.append(len(states)) or
                        logits(self, states))
    assert answer_log_probs(tiny_model, questions, answers).tolist() == pytest.approx(together.tolist(), abs=1e-4)
    assert most == [12] * 5


def scorer_of(model):
    scorer = RewardModel.from_language_model(model).eval()
    torch.nn.init.normal_(scorer.score.weight)
    return scorer


def scored(scorer, tokenizer, subjects, prompts, monkeypatch, length=128, batch_size=64):
    """Scores, and how many places were read for them, the padding counted."""
    read = []
    with monkeypatch.context() as patched:
        forward = type(scorer.model).forward
        patched.setattr(type(scorer.model), "forward", lambda self, ids, *rest: read.append(ids.numel()) or
                        forward(self, ids, *rest))
        return score_subjects(scorer, tokenizer, subjects, length, batch_size, prompts), sum(read)


def questions(prose, counts, continues):
    """So many answers to each of a few questions, which are of different lengths, and the questions."""
    prompts = [Example(user_asks(f"Continue: {text[:30 + 25 * number]}"), "", (), text[:30 + 25 * number], continues)
               for number, text in enumerate(prose[:len(counts)])]
    repeated = [prompt for prompt, count in zip(prompts, counts, strict=True) for _ in range(count)]
    answers = ["", *(prose[number][40:45 + 3 * number] for number in range(1, len(repeated)))]
    return [prompt.answered(answer) for prompt, answer in zip(repeated, answers, strict=True)], repeated


@pytest.mark.parametrize("continues", [False, True])
@pytest.mark.parametrize("counts", [(4, 6, 2), (3, 1, 4), (9,)])
@pytest.mark.parametrize("layout", ["ours", "adapters", "llama", "gemma3_text", "gpt2"])
def test_a_prompt_that_is_read_once_gives_its_answers_the_same_scores(layout, counts, continues, tiny_model, tokenizer,
                                                                      prose, monkeypatch):
    scorer = scorer_of(wrapped(layout) if layout not in ("ours", "adapters") else tiny_model)
    if layout == "adapters":
        add_adapters(scorer, LoraConfig(rank=2), 0, whole=("score",))
        for _, adapter in adapters_of(scorer):
            torch.nn.init.normal_(adapter.lora_B, std=0.1)
    subjects, prompts = questions(prose, counts, continues)
    plain, places = scored(scorer, tokenizer, subjects, None, monkeypatch)
    once, fewer = scored(scorer, tokenizer, subjects, prompts, monkeypatch)
    assert plain.std() > 0.1 and torch.allclose(once, plain, rtol=1e-5, atol=1e-5 * plain.abs().max().item())
    assert fewer < 0.8 * places
    assert torch.allclose(scored(scorer, tokenizer, subjects, prompts, monkeypatch, batch_size=5)[0], once, atol=1e-4)


def test_answers_whose_prompts_begin_otherwise_are_read_as_they_are(tiny_model, tokenizer, prose, monkeypatch):
    """Different prompts, and one that loses its beginning to answers of different lengths."""
    scorer = scorer_of(tiny_model)
    different, prompts = questions(prose, (1, 1, 1, 1), False)
    cut = [f"{prose[0][:300]} {text[:10 + 9 * number]}" for number, text in enumerate(prose[1:4])]
    for subjects, asked, length in ((different, prompts, 128), (cut, ["the same"] * 3, 24)):
        plain, places = scored(scorer, tokenizer, subjects, None, monkeypatch, length)
        same, as_many = scored(scorer, tokenizer, subjects, asked, monkeypatch, length)
        assert torch.equal(plain, same) and places == as_many


def test_what_is_scored_in_several_batches_is_read_beside_what_is_as_long(tiny_model, tokenizer, prose, monkeypatch):
    texts = [prose[0][:20 if number % 2 else 200] for number in range(8)]
    scorer = scorer_of(tiny_model)
    found, places = scored(scorer, tokenizer, texts, None, monkeypatch, batch_size=4)
    expected, of_all = scored(scorer, tokenizer, texts, None, monkeypatch)
    assert torch.allclose(found, expected, atol=1e-5) and places < 0.7 * of_all


def test_an_empty_answer_is_certain_whatever_is_beside_it(tiny_model):
    assert answer_log_probs(tiny_model, [[1, 2], [1, 2]], [[], []]).tolist() == [0, 0]
    assert answer_log_probs(tiny_model, [], []).tolist() == []
    beside = answer_log_probs(tiny_model, [[1, 2], [1, 2]], [[], [5]]).tolist()
    alone = answer_log_probs(tiny_model, [[1, 2]], [[5]]).tolist()
    assert beside == pytest.approx([0, *alone], abs=1e-5)
