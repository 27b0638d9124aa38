"""How likely a model finds given answers to given prompts."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from genai_core.data.chat import end_of
from genai_core.data.tokens.batches import pad
from genai_core.models.language_model import LanguageModel

BATCH = 32


@torch.no_grad()
def answer_log_probs(model: LanguageModel, prompts: list[list[int]], answers: list[list[int]],
                     start: Sequence[int] = ()) -> Tensor:
    """Log-probability (N,) of each answer's tokens after its prompt, in nats, float64 on the CPU.

    Where the two do not fit into the context, the prompt loses its beginning, but for the `start` of a document; an
    answer that alone is longer loses its own. A prompt needs a token, since the first one of a text has no probability.
    """
    device = next(model.parameters()).device
    rows = [end_of(prompt + answer, model.context_length, start)
            for prompt, answer in zip(prompts, answers, strict=True)]
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))      # little padding
    sums = torch.zeros(len(rows), dtype=torch.float64)
    for first in range(0, len(order), BATCH):
        chosen = order[first:first + BATCH]
        ids, attention_mask = (tensor.to(device) for tensor in pad([rows[index] for index in chosen], 0, "right"))
        counts = torch.tensor([min(len(answers[index]), len(rows[index]) - 1) for index in chosen], device=device)
        from_end = attention_mask[:, 1:].flip(1).cumsum(1).flip(1)      # 1 at the last token, 2 at the one before
        answered = attention_mask[:, 1:] & (from_end <= counts[:, None])
        states = model.hidden(ids)[:, :-1][answered]      # a vocabulary wide: not for every token of the prompts
        log_probs = F.log_softmax(model.logits(states).float(), dim=-1).gather(-1, ids[:, 1:][answered][:, None])[:, 0]
        by_row = torch.zeros(answered.shape, dtype=log_probs.dtype, device=device).masked_scatter(answered, log_probs)
        sums[chosen] = by_row.sum(1).cpu().double()
    return sums
