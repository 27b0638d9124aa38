"""How likely a model finds given answers to given prompts."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from genai_core.data.chat import end_of
from genai_core.data.tokens.batches import pad
from genai_core.inference.precision import inference_precision
from genai_core.inference.sequences import in_sequence, log_probs_and_entropy, token_log_probs
from genai_core.models.language_model import LanguageModel

BATCH = 32
LOGITS_AT_ONCE = 2**28
"""Most logits of answers that are there at a time, unless a single answer has more."""

Row = tuple[tuple[int, ...], list[int]]
"""A prompt and an answer, as much of them as the model can read."""


@torch.no_grad()
def answer_log_probs(model: LanguageModel, prompts: list[list[int]], answers: list[list[int]],
                     start: Sequence[int] = ()) -> Tensor:
    """Log-probability (N,) of each answer's tokens after its prompt, in nats, float64 on the CPU.

    Where the two do not fit into the context, the prompt loses its beginning, but for the `start` of a document; an
    answer that alone is longer loses its own. A prompt needs a token, since the first one of a text has no probability.
    An empty answer has 0. A prompt of several answers is read once, where the architecture lets it.
    """
    rows = [_fitting(prompt, answer, model.context_length, start)
            for prompt, answer in zip(prompts, answers, strict=True)]
    sums = torch.zeros(len(rows), dtype=torch.float64)
    for chosen in _batches(rows, model.config.vocab_size):      # those without an answer are in none
        sums[chosen] = _log_probs(model, [rows[index] for index in chosen])
    return sums


def _fitting(prompt: list[int], answer: list[int], room: int, start: Sequence[int]) -> Row:
    ids = end_of(prompt + answer, room, start)
    begin = len(ids) - min(len(answer), len(ids) - 1)
    return tuple(ids[:begin]), ids[begin:]


def _batches(rows: list[Row], vocabulary: int) -> Iterator[list[int]]:
    """Numbers of rows that are read together: those of the same prompt are neighbours, and there is little padding."""
    of_prompt: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for number, (prompt, answer) in enumerate(rows):
        if answer:
            of_prompt[prompt].append(number)
    lengths = {prompt: len(prompt) + max(len(rows[number][1]) for number in numbers)
               for prompt, numbers in of_prompt.items()}
    batch: list[int] = []
    logits = 0
    for prompt in sorted(of_prompt, key=lambda prompt: lengths[prompt]):
        for number in of_prompt[prompt]:
            more = len(rows[number][1]) * vocabulary
            if batch and (len(batch) == BATCH or logits + more > LOGITS_AT_ONCE):
                yield batch
                batch, logits = [], 0
            batch.append(number)
            logits += more
    if batch:
        yield batch


def _log_probs(model: LanguageModel, rows: list[Row]) -> Tensor:
    """Summed log-probability of the answer of each row."""
    device = next(model.parameters()).device
    prompts, answers = [list(prompt) for prompt, _ in rows], [answer for _, answer in rows]
    with inference_precision(model):
        if len({prompt for prompt, _ in rows}) < len(rows) and model.prompt_cache() is not None:
            ids, mask = (tensor.to(device) for tensor in pad(answers, 0, "right"))
            log_probs, _ = token_log_probs(model, in_sequence(prompts, ids, mask, 0), 1.0, entropy=False)
        else:
            ids, mask = (tensor.to(device) for tensor in pad([[*prompt, *answer] for prompt, answer in rows], 0,
                                                             "right"))
            places = torch.arange(ids.shape[1], device=device)
            answered = mask & (places >= torch.tensor([len(prompt) for prompt in prompts], device=device)[:, None])
            sequences = {"ids": ids, "completion_mask": answered}
            log_probs, _ = log_probs_and_entropy(model, model.hidden(ids), sequences, 1.0, entropy=False)
    return log_probs.sum(1).cpu().double()
