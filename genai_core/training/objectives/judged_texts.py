"""What the objectives of a reward model share: batches of judged texts, and accuracy on those that are held out."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from genai_core.config.training import RewardConfig
from genai_core.data.chat import END_OF_TEXT, token_id
from genai_core.data.instruction.judgements import Judged
from genai_core.data.tokens.batches import epoch_rows
from genai_core.evaluation.preferences import judged_accuracy
from genai_core.models.reward import RewardModel, encode_subjects, score_subjects
from genai_core.training.objectives.objective import Batch, Objective
from genai_core.training.ranks import Ranks


class JudgedTexts(Objective):
    """An objective on texts and conversations that people judged; what their scores are held against, its loss says."""

    unit = "texts"
    fixed_shapes = True

    def __init__(self, model: RewardModel, tokenizer: Any, judged: list[Judged], validation: list[Judged],
                 config: RewardConfig, device: torch.device):
        """`judged` has an even number of judgements: the first two come into the same batches, the next two, and so on.
        """
        self.model = model
        self.tokenizer = tokenizer
        self.config = config
        self.device = device
        self.ids, self.last = encode_subjects(tokenizer, [each.subject for each in judged], config.context_length)
        self.ratings = torch.tensor([each.rating for each in judged], dtype=torch.float32)
        numbers = {group: number for number, group in enumerate(dict.fromkeys(each.group for each in judged))}
        self.groups = torch.tensor([numbers[each.group] for each in judged])
        self.validation = validation
        self.ranks = Ranks.current()
        self.blank_id = token_id(tokenizer, END_OF_TEXT)
        self.steps = max(1, round(len(judged) * config.epochs / config.batch_size))
        self.flops = self.steps * config.batch_size * self.ids.shape[1] \
            * model.training_flops_per_token(self.ids.shape[1])
        self.evaluation_steps = frozenset(self.steps * part // 4 for part in (1, 2, 3))

    def batch(self, step: int) -> Batch:
        pairs = epoch_rows(len(self.ratings) // 2, step, self.config.batch_size // 2, self.config.seed)
        rows = torch.from_numpy((2 * pairs[:, None] + np.arange(2)).ravel())
        ids = self._drop_tokens(self.ids[rows], self.last[rows], step)
        return {"ids": ids.to(self.device), "last": self.last[rows].to(self.device),
                "ratings": self.ratings[rows].to(self.device), "groups": self.groups[rows].to(self.device)}

    def _drop_tokens(self, ids: Tensor, last: Tensor, step: int) -> Tensor:
        """Ids (B, T) with a random share of the tokens replaced by a blank, the last one never (word dropout)."""
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + step)
        blank = torch.rand(ids.shape, generator=generator) < self.config.token_dropout
        blank &= torch.arange(ids.shape[1])[None] < last[:, None]
        return ids.masked_fill(blank, self.blank_id)

    def size(self, batch: Batch) -> int:
        return len(batch["ratings"])

    def evaluate(self, step: int) -> dict[str, float]:
        if len(self.validation) < 2:
            return {}
        scores = score_subjects(self.model, self.tokenizer, [each.subject for each in self.validation],
                                self.config.context_length).double().numpy()
        accuracy = judged_accuracy(scores, self.validation, self.config.min_rating_gap)
        return {} if np.isnan(accuracy) else {"validation_accuracy": accuracy}
