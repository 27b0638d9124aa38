"""The reward model: the decoder with a scalar head on the last token."""

from collections.abc import Sequence

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from genai_core.data.chat import TURN_END, document_start, encode_chat, end_of, token_id, without_specials
from genai_core.data.instruction.judgements import Subject
from genai_core.data.tokens.batches import pad
from genai_core.models.flops import flops_per_token
from genai_core.models.four_bit import number_of_weights
from genai_core.models.huggingface import HuggingFaceConfig, HuggingFaceDecoder, HuggingFaceModel
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
        states = self.model(ids, position_ids, None, None)
        return self.score(states[torch.arange(len(ids), device=ids.device), last])[:, 0].float()


def encode_subjects(tokenizer: Tokenizer, subjects: Sequence[Subject], length: int) -> tuple[Tensor, Tensor]:
    """Ids (B, T ≤ length) of texts and conversations, each closed by the end-of-turn token, and the index of that token
    (B,).

    A longer one keeps its end, and the start of a document. The index comes from the lengths, never from the id of the
    padding.
    """
    end, start = token_id(tokenizer, TURN_END), document_start(tokenizer)
    texts = [without_specials(tokenizer, subject) if isinstance(subject, str) else "" for subject in subjects]
    encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    rows = []
    for subject, encoding in zip(subjects, encodings, strict=True):
        row = start + encoding.ids if isinstance(subject, str) else \
            _up_to_the_end(encode_chat(tokenizer, subject)[0], end)
        rows.append([*end_of(row, length - 1, start), end])
    ids, attention_mask = pad(rows, 0, "right")
    return ids, attention_mask.sum(dim=1) - 1


def _up_to_the_end(ids: list[int], end: int) -> list[int]:
    """The ids of a conversation before its last end of a turn."""
    return ids[:len(ids) - 1 - ids[::-1].index(end)]


@torch.no_grad()
def score_subjects(model: RewardModel, tokenizer: Tokenizer, subjects: Sequence[Subject], length: int,
                   batch_size: int = 64) -> Tensor:
    """Rewards (B,) of texts and conversations, on the CPU."""
    device = next(model.parameters()).device
    scores = []
    for first in range(0, len(subjects), batch_size):
        ids, last = encode_subjects(tokenizer, subjects[first:first + batch_size], length)
        scores.append(model(ids.to(device), last.to(device)).cpu())
    return torch.cat(scores)
