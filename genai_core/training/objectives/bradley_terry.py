"""The pairwise loss of a reward model."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from genai_core.config.training import RewardConfig
from genai_core.data.batches import epoch_rows
from genai_core.data.chat import END_OF_TEXT, token_id
from genai_core.data.tables import Rows
from genai_core.evaluation.preferences import pair_accuracy
from genai_core.models.reward import RewardModel, encode_texts, score_texts
from genai_core.models.transformer import training_flops_per_token
from genai_core.training.objectives.objective import Batch, Objective


class BradleyTerry(Objective):
    """−log σ(r_better − r_worse) over all pairs of a batch (Bradley & Terry 1952; Ouyang et al. 2022, eq. 1).

    A batch holds rated texts, and every two whose ratings are far enough apart are a pair: B texts cost B forward
    passes and give up to B(B−1)/2 pairs.
    """

    unit = "texts"
    fixed_shapes = False

    def __init__(self, model: RewardModel, tokenizer: Any, rows: Rows, validation: Rows, config: RewardConfig,
                 device: torch.device):
        self.model, self.tokenizer, self.config, self.device = model, tokenizer, config, device
        self.ids, self.last = encode_texts(tokenizer, [row["text"] for row in rows], config.context_length)
        self.ratings = torch.tensor([row["rating"] for row in rows], dtype=torch.float32)
        self.validation = validation
        self.blank_id = token_id(tokenizer, END_OF_TEXT)
        self.steps = max(1, round(len(rows) * config.epochs / config.batch_size))
        self.flops = self.steps * config.batch_size * self.ids.shape[1] \
            * training_flops_per_token(model.config, self.ids.shape[1])
        self.evaluation_steps = frozenset(self.steps * part // 4 for part in (1, 2, 3))

    def batch(self, step: int) -> Batch:
        count = len(self.ratings)
        rows = torch.from_numpy(epoch_rows(count, step, self.config.batch_size, self.config.seed))
        longest = int(self.last[rows].max()) + 1
        return {"ids": self.ids[rows, :longest].to(self.device), "last": self.last[rows].to(self.device),
                "ratings": self.ratings[rows].to(self.device)}

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        rewards = self.model(self._drop_tokens(batch["ids"], batch["last"]), batch["last"])
        pairs = self._pairs(batch)
        difference = rewards[:, None] - rewards[None, :]
        right = ((difference > 0) & pairs).sum()
        return (F.softplus(-difference) * pairs).sum(), {"accuracy": right.detach()}

    def _drop_tokens(self, ids: Tensor, last: Tensor) -> Tensor:
        """Training ids with a random share of the tokens blanked, the last one never (word dropout)."""
        blank = torch.rand(ids.shape, device=ids.device) < self.config.token_dropout
        blank &= torch.arange(ids.shape[1], device=ids.device)[None] < last[:, None]
        return ids.masked_fill(blank, self.blank_id)

    def _pairs(self, batch: Batch) -> Tensor:
        """True at (i, j) where text i is rated higher than text j by enough."""
        return batch["ratings"][:, None] - batch["ratings"][None, :] >= self.config.min_rating_gap

    def targets(self, batch: Batch) -> float:
        """Pairs within the micro-batches that the loop will cut."""
        size = len(batch["ratings"]) // self.config.accumulation_steps
        return max(1, sum(int(self._pairs({"ratings": part}).sum()) for part in batch["ratings"].split(size)))

    def size(self, batch: Batch) -> int:
        return len(batch["ratings"])

    def evaluate(self, step: int) -> dict[str, float]:
        if len(self.validation) < 2:
            return {}
        scores = score_texts(self.model, self.tokenizer, [row["text"] for row in self.validation],
                             self.config.context_length).numpy()
        ratings = np.array([row["rating"] for row in self.validation])
        return {"validation_accuracy": pair_accuracy(scores, ratings, 1.0)}
