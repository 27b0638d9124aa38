"""The pairwise loss of a reward model."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from genai_core.config.training import RewardConfig
from genai_core.data.instruction.judgements import Judged
from genai_core.models.reward import RewardModel
from genai_core.training.objectives.judged_texts import JudgedTexts
from genai_core.training.objectives.objective import Batch


class BradleyTerry(JudgedTexts):
    """−log σ(r_better − r_worse) summed over the pairs of a batch (Bradley & Terry 1952; Ouyang et al. 2022, eq. 1).

    Of the judgements of a batch every two of one group whose ratings are far enough apart are a pair: B ratings of one
    source cost B forward passes and give up to B (B − 1) / 2 pairs, two answers of a preference give one.
    """

    def __init__(self, model: RewardModel, tokenizer: Any, judged: list[Judged], validation: list[Judged],
                 config: RewardConfig, device: torch.device):
        super().__init__(model, tokenizer, judged, validation, config, device)
        gaps = {each.group: each.least_gap(config.min_rating_gap) for each in judged}
        self.gaps = torch.tensor(list(gaps.values()), device=device)
        """Least difference of two ratings of a pair, by the number of their group."""

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        # L = −log σ(r_better − r_worse − m) = softplus(m − margin)   Ouyang et al. 2022, eq. 1; m: Touvron et al. 2023,
        # m = a (rating_better − rating_worse)                        eq. 2, of how much better people found it
        # + c (r_better + r_worse)²                                   Eisenstein et al. 2023: rewards around 0
        share = self.model(batch["ids"], batch["last"]), batch["ratings"], batch["groups"]
        rewards, ratings, groups = (self.ranks.all_gather(each) for each in share)      # (B,) each
        pairs = self._pairs(ratings, groups)                                       # (B, B)
        margins = rewards[:, None] - rewards[None, :]
        wanted = self.config.margin * (ratings[:, None] - ratings[None, :])        # m
        loss = (F.softplus(wanted - margins) * pairs).sum()
        if self.config.centring:
            sums = rewards[:, None] + rewards[None, :]
            loss = loss + self.config.centring * (sums ** 2 * pairs).sum()
        correct = ((margins > 0) & pairs).sum()
        return loss / self.ranks.count, {"accuracy": correct.detach() / self.ranks.count}

    def _pairs(self, ratings: Tensor, groups: Tensor) -> Tensor:
        """(B, B): True where judgement i is of the group of judgement j and higher by enough."""
        higher = ratings[:, None] - ratings[None, :] >= self.gaps[groups][:, None]
        return higher & (groups[:, None] == groups[None, :])

    def targets(self, batch: Batch) -> Tensor:
        """Number of pairs within the micro-batches that the loop cuts."""
        size = len(batch["ratings"]) // self.config.accumulation_steps
        parts = zip(batch["ratings"].split(size), batch["groups"].split(size), strict=True)
        return torch.stack([self._pairs(ratings, groups).sum() for ratings, groups in parts]).sum().clamp(min=1)
