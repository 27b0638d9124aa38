"""Answers that a policy samples, what the trainer thinks of them token by token, and figures of them.

Shapes: B completions; T tokens, prompt and completion; V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from genai_core.config.training import RlhfConfig
from genai_core.data.chat import END_OF_TEXT, end_ids, fit_prompt, token_id
from genai_core.data.instruction.examples import Example
from genai_core.data.tokens.batches import pad
from genai_core.models.language_model import LanguageModel
from genai_core.models.masks import left_padded_mask, position_ids_of
from genai_core.rewards.reward import Rewards
from genai_core.training.alignment.samplers import OwnSampler, Sampler
from genai_core.training.alignment.taken import taken_log_probs

Gold = Callable[[list[str]], float]
"""Answers to the held-out prompts, in their order, to their mean gold reward."""
Sequences = dict[str, Tensor]
"""Prompts, padded on the left, and what follows them, padded on the right: `ids` (B, T), `completion_mask` (B, T) True
on the tokens of the assistant, `position_ids` (B, T) 0 at the first token of each prompt, and `mask` (B, 1, T, T) True
where a token may attend to another."""


@dataclass(frozen=True)
class Rollout:
    """Prompts and the completions that a policy sampled."""

    sequences: Sequences
    log_probs: Tensor
    """Log-probabilities (B, T − 1) of the tokens from the second on, when they were sampled; 0 on prompts."""
    prompt_ids: list[list[int]]
    """Token ids of each prompt."""
    completion_ids: list[list[int]]
    """Token ids of each completion, the end token included."""
    answers: list[str]
    """Text of the completions."""
    finished: Tensor
    """(B,): True for a completion that came to its end, False for one that was cut off."""

    @property
    def target_mask(self) -> Tensor:
        """Completion mask (B, T − 1) of the tokens from the second on, which are those that have a probability."""
        return self.sequences["completion_mask"][:, 1:]


def uniform(config: RlhfConfig, step: int) -> Tensor:
    """Numbers from 0 to 1 (B, N) that the tokens of a step's answers are drawn by: a function of the step, so that the
    same answers come about on however many ranks."""
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
    return torch.rand((config.batch_size, config.completion_tokens), generator=generator)


@torch.no_grad()
def sample_rollout(policy: LanguageModel, tokenizer: Tokenizer, prompts: list[Example], config: RlhfConfig,
                   draws: Tensor | None = None, sampler: Sampler | None = None) -> Rollout:
    """One answer to each prompt, sampled at the config's temperature from the whole vocabulary, by `draws` (B, N) where
    they are given, and by the engine of this project where no other sampler is."""
    room = policy.context_length - config.completion_tokens
    encoded = [fit_prompt(tokenizer, prompt.asked, room)[0] for prompt in prompts]
    pad_id = token_id(tokenizer, END_OF_TEXT)
    completions = (sampler or OwnSampler(tokenizer, config)).complete(policy, encoded, draws)
    unpadded = completions.unpadded()
    answers = [text.strip() for text in tokenizer.decode_batch(unpadded, skip_special_tokens=True)]
    sequences = in_sequence(encoded, completions.ids, completions.mask, pad_id)
    ends = torch.tensor(sorted(end_ids(tokenizer)), device=completions.ids.device)
    before = sequences["ids"].shape[1] - completions.ids.shape[1]
    return Rollout(
        sequences, log_probs=F.pad(completions.log_probs, (before - 1, 0)), prompt_ids=encoded, completion_ids=unpadded,
        answers=answers, finished=torch.isin(completions.ids, ends).any(1))


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
    ids = sequences["ids"][:, 1:][counted]
    taken, entropies = taken_log_probs(logits if temperature == 1 else logits / temperature, ids, entropy)
    nothing = taken.new_zeros(counted.shape)
    return nothing.masked_scatter(counted, taken), nothing.masked_scatter(counted, entropies)


@torch.no_grad()
def evaluate_policy(policy: LanguageModel, reference: LanguageModel, rewards: Rewards, tokenizer: Tokenizer,
                    prompts: list[Example], config: RlhfConfig, gold: Gold | None = None,
                    sampler: Sampler | None = None) -> dict[str, float]:
    """Figures of the policy's answers to `prompts`: their reward as training has it, with what is taken off where they
    were cut off, its standard deviation, and each of its parts without; their length in tokens, entropy a token, the
    share that was cut off, the shares of distinct words and of distinct pairs of words, the KL to the reference in nats
    a completion, and the mean gold reward where there is one."""
    rollout = sample_rollout(policy, tokenizer, prompts, config, sampler=sampler)
    scores = rewards.score(prompts, rollout.answers)
    total = penalised(scores.total, rollout, config)
    policy_log_probs, entropy = token_log_probs(policy, rollout.sequences, config.temperature)
    reference_log_probs, _ = token_log_probs(reference, rollout.sequences, config.temperature, entropy=False)
    mask = rollout.target_mask.float()
    golden = {} if gold is None else {"held_out_gold": gold(rollout.answers)}
    return {"held_out_reward": total.mean().item(), "held_out_reward_deviation": total.std(correction=0).item(),
            **{f"held_out_reward/{name}": each.mean().item() for name, each in scores.parts.items()},
            "held_out_kl": ((policy_log_probs - reference_log_probs) * mask).sum().item() / len(prompts),
            "held_out_entropy": ((entropy * mask).sum() / mask.sum()).item(),
            "held_out_length": mask.sum().item() / len(prompts),
            "held_out_truncated": (~rollout.finished).float().mean().item(),
            "distinct_words": distinct(rollout.answers, 1), "held_out_distinct_2": distinct(rollout.answers, 2),
            **golden}


def penalised(rewards: Tensor, rollout: Rollout, config: RlhfConfig) -> Tensor:
    """Rewards (B,) less `truncation_penalty` for each completion that was cut off."""
    return rewards - config.truncation_penalty * (~rollout.finished).to(rewards)


def distinct(texts: list[str], n: int) -> float:
    """Distinct-n (Li et al. 2016): different n-grams of words by all of them, over all texts together; n is 1 or 2."""
    grams: list[object] = []
    for text in texts:
        words = text.split()
        grams += words if n == 1 else list(pairwise(words))
    return len(set(grams)) / max(1, len(grams))
