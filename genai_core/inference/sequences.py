"""Prompts with what follows them, side by side, and how likely a model finds what follows.

Shapes: B sequences; T tokens, prompt and completion; N of a completion; V vocabulary; C hidden size.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from genai_core.data.tokens.batches import pad
from genai_core.models.language_model import LanguageModel
from genai_core.models.masks import left_padded_mask, position_ids_of

Sequences = dict[str, Tensor]
"""Prompts, padded on the left, and what follows them, padded on the right: `ids` (B, T), `completion_mask` (B, T) True
on the tokens of the assistant, `position_ids` (B, T) 0 at the first token of each prompt, and `mask` (B, 1, T, T) True
where a token may attend to another."""


def in_sequence(prompts: list[list[int]], completions: Tensor, completion_mask: Tensor, pad_id: int) -> Sequences:
    """Prompts, and after each its completion (B, N) with a mask (B, N)."""
    device, new_tokens = completions.device, completions.shape[1]
    prompt_ids, prompt_mask = (tensor.to(device) for tensor in pad(prompts, pad_id, "left"))
    # what pads a completion on the right comes after all that counts, so it needs no mask
    attention_mask = F.pad(prompt_mask, (0, new_tokens), value=True)
    return {"ids": torch.cat([prompt_ids, completions], dim=1),
            "completion_mask": torch.cat([torch.zeros_like(prompt_mask), completion_mask], dim=1),
            "position_ids": position_ids_of(attention_mask), "mask": left_padded_mask(attention_mask)}


def token_log_probs(model: LanguageModel, sequences: Sequences, temperature: float, entropy: bool = True
                    ) -> tuple[Tensor, Tensor]:
    """Log-probability of each token of the assistant, and entropy of the distribution that it is drawn from, both
    (B, T − 1) for the tokens from the second on, at a temperature; 0 on all other tokens. The entropy has no gradient,
    and is 0 where nobody asks for it. Neighbours that go on from the same prompt read it once."""
    ids, mask = sequences["ids"], sequences["mask"].expand(len(sequences["ids"]), -1, -1, -1)
    positions = sequences["position_ids"].expand_as(ids)
    start = int(sequences["completion_mask"].any(0).int().argmax())      # P, where answers begin
    prompts = torch.cat([ids[:, :start], positions[:, :start]], 1)      # positions tell padding from the same token
    first = F.pad((prompts[1:] != prompts[:-1]).any(1), (1, 0), value=True)
    cache = None if first.all() or start in (0, ids.shape[1] - 1) else model.prompt_cache()
    if cache is None:
        states = model.hidden(ids, sequences["position_ids"], sequences["mask"])
        return log_probs_and_entropy(model, states, sequences, temperature, entropy)
    rows = first.cumsum(0) - 1
    known = model.hidden(ids[first, :start], positions[first, :start], mask[first, :, :start, :start], cache)
    cache.repeat(rows)
    more = model.hidden(ids[:, start:-1], positions[:, start:-1], mask[:, :, start:-1, :-1], cache)
    tail = {name: sequences[name][:, start - 1:] for name in ("ids", "completion_mask")}
    states = torch.cat([known[rows, -1:], more, more[:, -1:]], 1)      # of the last token nothing is asked
    log_probs, entropies = log_probs_and_entropy(model, states, tail, temperature, entropy)
    return F.pad(log_probs, (start - 1, 0)), F.pad(entropies, (start - 1, 0))


def log_probs_and_entropy(model: LanguageModel, states: Tensor, sequences: Sequences, temperature: float,
                          entropy: bool = True) -> tuple[Tensor, Tensor]:
    """The same of hidden states (B, T, C)."""
    counted = sequences["completion_mask"][:, 1:] != 0      # what is a vocabulary wide takes the time
    logits = model.logits(states[:, :-1][counted]).float()
    log_probs = F.log_softmax(logits if temperature == 1 else logits / temperature, dim=-1)
    taken = log_probs.gather(-1, sequences["ids"][:, 1:][counted][:, None])[:, 0]
    entropies = torch.zeros_like(taken)
    if entropy:
        with torch.no_grad():
            entropies = -log_probs.exp().mul_(log_probs).sum(-1)
    nothing = taken.new_zeros(counted.shape)
    return nothing.masked_scatter(counted, taken), nothing.masked_scatter(counted, entropies)
