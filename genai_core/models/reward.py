"""The reward model: the decoder with a scalar head on the last token, and scoring with it.

Shapes: B texts, T tokens, N prompts that texts go on from.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from genai_core.data.chat import TURN_END, document_start, encode_chat, end_of, token_id, without_specials
from genai_core.data.instruction.judgements import Subject
from genai_core.data.tokens.batches import pad
from genai_core.models.cache import PromptCache
from genai_core.models.flops import flops_per_token
from genai_core.models.four_bit import number_of_weights
from genai_core.models.huggingface import HuggingFaceConfig, HuggingFaceDecoder, HuggingFaceModel
from genai_core.models.masks import causal_mask, left_padded_mask, position_ids_of
from genai_core.models.transformer import Decoder, Transformer, TransformerConfig, training_flops_per_token

SCORE = "score"
"""Name of the head."""


class RewardModel(nn.Module):
    """A score for a text or a conversation: linear in the decoder's state at the last token (Ouyang et al. 2022)."""

    def __init__(self, config: TransformerConfig | HuggingFaceConfig):
        super().__init__()
        self.config = config
        self.model: Decoder | HuggingFaceDecoder = \
            HuggingFaceDecoder(config) if isinstance(config, HuggingFaceConfig) else Decoder(config)
        self.score = nn.Linear(config.hidden_size, 1, bias=False)
        nn.init.zeros_(self.score.weight)

    @classmethod
    def from_language_model(cls, model: Transformer | HuggingFaceModel) -> "RewardModel":
        """Build a reward model from `model`: its decoder, and a scalar head initialised to zero."""
        reward = cls(model.config)
        reward.model.load_state_dict(model.model.state_dict())
        return reward.to(next(model.parameters()).device)

    def training_flops_per_token(self, length: int) -> float:
        """Floating-point operations of the forward and backward pass for one token of a text of `length` tokens."""
        if isinstance(self.config, TransformerConfig):
            return training_flops_per_token(self.config, length)
        return flops_per_token(number_of_weights(self), self.config.num_hidden_layers, self.config.attention_width,
                               length)

    def forward(self, ids: Tensor, last: Tensor) -> Tensor:
        """Rewards (B,) of texts (B, T) padded on the right; `last` (B,) is the index of each text's last token."""
        position_ids = torch.arange(ids.shape[1], device=ids.device)[None]
        return self._scores(self.model(ids, position_ids, None, None, last))

    def continued(self, prompts: list[list[int]], rows: list[int], rests: list[list[int]]) -> Tensor:
        """Rewards (B,) of texts of which number b is the prompt `prompts[rows[b]]` and then `rests[b]`, which has at
        least one token. Each of the N prompts is read once."""
        device = self.score.weight.device
        prompt_ids, prompt_mask = (tensor.to(device) for tensor in pad(prompts, 0, "left"))
        ids, attention_mask = (tensor.to(device) for tensor in pad(rests, 0, "right"))
        of, count = torch.tensor(rows, device=device), ids.shape[1]
        cache = PromptCache(device)
        # of prompts the last block makes keys and values, and beyond them as little as can be asked for
        self.model(prompt_ids, position_ids_of(prompt_mask), left_padded_mask(prompt_mask), cache,
                   torch.zeros(len(prompts), dtype=torch.long, device=device))
        cache.grow(prompt_ids.shape[1])
        cache.repeat(of)
        position_ids = prompt_mask.sum(1)[of, None] + torch.arange(count, device=device)
        before = prompt_mask[of, None, None].expand(-1, -1, count, -1)
        mask = torch.cat([before, causal_mask(count, device).expand(len(of), -1, -1, -1)], -1)
        return self._scores(self.model(ids, position_ids, mask, cache, attention_mask.sum(1) - 1))

    def _scores(self, states: Tensor) -> Tensor:
        return self.score(states[:, 0])[:, 0].float()


def encode_subjects(tokenizer: Tokenizer, subjects: Sequence[Subject], length: int) -> tuple[Tensor, Tensor]:
    """Ids (B, T ≤ length) of texts and conversations, each closed by the end-of-turn token, and the index of that token
    (B,).

    A longer one keeps its end, and the start of a document. The index comes from the lengths, never from the id of the
    padding.
    """
    return _padded(_encoded(tokenizer, subjects, length))


def _encoded(tokenizer: Tokenizer, subjects: Sequence[Subject], length: int) -> list[list[int]]:
    end, start = token_id(tokenizer, TURN_END), document_start(tokenizer)
    texts = [without_specials(tokenizer, subject) if isinstance(subject, str) else "" for subject in subjects]
    encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    rows = []
    for subject, encoding in zip(subjects, encodings, strict=True):
        row = start + encoding.ids if isinstance(subject, str) else \
            _up_to_the_end(encode_chat(tokenizer, subject)[0], end)
        rows.append([*end_of(row, length - 1, start), end])
    return rows


def _up_to_the_end(ids: list[int], end: int) -> list[int]:
    """The ids of a conversation before its last end of a turn."""
    return ids[:len(ids) - 1 - ids[::-1].index(end)]


def _padded(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    ids, attention_mask = pad(rows, 0, "right")
    return ids, attention_mask.sum(dim=1) - 1


@torch.no_grad()
def score_subjects(model: RewardModel, tokenizer: Tokenizer, subjects: Sequence[Subject], length: int,
                   batch_size: int = 64, prompts: Sequence[object] | None = None) -> Tensor:
    """Rewards (B,) of texts and conversations, on the CPU.

    `prompts` (B,) are what they answer: the tokens that neighbours with equal prompts begin with together are read
    once. At most `batch_size` are read at a time, of about one length, but all with one prompt.
    """
    encoded = _encoded(tokenizer, subjects, length)
    asked = range(len(subjects)) if prompts is None else prompts
    groups = [list(group) for _, group in groupby(range(len(subjects)), key=lambda number: asked[number])]
    groups.sort(key=lambda group: max(len(encoded[number]) for number in group))
    scores = torch.zeros(len(subjects))
    for batch in _batches(groups, batch_size):
        numbers = [number for group in batch for number in group]
        scores[numbers] = _score(model, [[encoded[number] for number in group] for group in batch]).cpu()
    return scores


def _batches(groups: list[list[int]], size: int) -> Iterator[list[list[int]]]:
    """Neighbouring groups that have at most `size` members together; a larger one by itself."""
    batch: list[list[int]] = []
    for group in groups:
        if batch and sum(map(len, batch)) + len(group) > size:
            yield batch
            batch = []
        batch.append(group)
    if batch:
        yield batch


def _score(model: RewardModel, groups: list[list[list[int]]]) -> Tensor:
    """Rewards (B,) of the token ids of texts: what a group begins with is read once where that is less to read."""
    texts = [text for group in groups for text in group]
    shared = [_beginning(group) for group in groups]
    prompts = [group[0][:count] for group, count in zip(groups, shared, strict=True)]
    rests = [text[count:] for group, count in zip(groups, shared, strict=True) for text in group]
    apart = len(prompts) * max(shared) + len(rests) * max(map(len, rests))
    if apart < len(texts) * max(map(len, texts)):
        return model.continued(prompts, [row for row, group in enumerate(groups) for _ in group], rests)
    device = model.score.weight.device
    ids, last = _padded(texts)
    return model(ids.to(device), last.to(device))


def _beginning(group: list[list[int]]) -> int:
    """Number of tokens that all texts of a group begin with, the last of none counted."""
    limit = min(map(len, group)) - 1
    same = (len(set(tokens)) == 1 for tokens in zip(*group, strict=False))
    return next((place for place, alike in zip(range(limit), same, strict=False) if not alike), limit)
