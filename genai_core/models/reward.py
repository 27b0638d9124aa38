"""The reward model: the decoder with a scalar head on the last token."""

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from genai_core.data.batches import pad
from genai_core.data.chat import TURN_END, plain, token_id
from genai_core.models.transformer import Decoder, Transformer, TransformerConfig


class RewardModel(nn.Module):
    """A score for a text: linear in the decoder's state at its last token (Ouyang et al. 2022, section 3.5)."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.score = nn.Linear(config.hidden_size, 1, bias=False)
        nn.init.zeros_(self.score.weight)

    @classmethod
    def from_language_model(cls, model: Transformer) -> "RewardModel":
        """Build a reward model from `model`: its decoder, and a scalar head initialised to zero."""
        reward = cls(model.config)
        reward.model.load_state_dict(model.model.state_dict())
        return reward.to(next(model.parameters()).device)

    def forward(self, ids: Tensor, last: Tensor) -> Tensor:
        """Rewards (B,) of texts (B, T) padded on the right; `last` (B,) is the index of each text's last token."""
        position_ids = torch.arange(ids.shape[1], device=ids.device)[None]
        states = self.model(ids, position_ids, None, None)
        return self.score(states[torch.arange(len(ids), device=ids.device), last])[:, 0].float()


def encode_texts(tokenizer: Tokenizer, texts: list[str], length: int) -> tuple[Tensor, Tensor]:
    """Ids (B, T ≤ length) of texts, each closed by the end-of-turn token, and the index of that token (B,).

    A longer text keeps its end. The index comes from the lengths, never from the id of the padding.
    """
    end = token_id(tokenizer, TURN_END)
    encodings = tokenizer.encode_batch_fast([plain(text) for text in texts], add_special_tokens=False)
    rows = [[*encoding.ids[-(length - 1):], end] for encoding in encodings]
    ids, attention_mask = pad(rows, 0, "right")
    return ids, attention_mask.sum(dim=1) - 1


@torch.no_grad()
def score_texts(model: RewardModel, tokenizer: Tokenizer, texts: list[str], length: int, batch_size: int = 64
                ) -> Tensor:
    """Rewards (B,) of texts, on the CPU."""
    device = next(model.parameters()).device
    scores = []
    for first in range(0, len(texts), batch_size):
        ids, last = encode_texts(tokenizer, texts[first:first + batch_size], length)
        scores.append(model(ids.to(device), last.to(device)).cpu())
    return torch.cat(scores)
