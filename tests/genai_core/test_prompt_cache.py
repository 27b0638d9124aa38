"""A prompt is read once for all of its completions, and nothing else changes."""

import pytest
import torch

from genai_core.models.huggingface import HuggingFaceConfig, HuggingFaceModel
from genai_core.training.alignment.rollouts import in_sequence, token_log_probs
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
