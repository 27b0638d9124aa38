"""The pointwise loss of a reward model."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genai_core.config.training import RewardConfig
from genai_core.data.instruction.judgements import Judged
from genai_core.models.reward import RewardModel
from genai_core.training.objectives.judged_texts import JudgedTexts
from genai_core.training.objectives.objective import Batch


class RatingRegression(JudgedTexts):
    """(r − z)² summed over the judgements of a batch, z the rating in standard deviations of its source around the mean
    of it (Wang et al. 2024, HelpSteer2, section 4: regression beside Bradley-Terry)."""

    def __init__(self, model: RewardModel, tokenizer: Any, judged: list[Judged], validation: list[Judged],
                 config: RewardConfig, device: torch.device):
        super().__init__(model, tokenizer, standardised(judged), validation, config, device)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        # L = (r − z)²,  z = (rating − mean) / std of the source
        rewards = self.model(batch["ids"], batch["last"])
        return ((rewards - batch["ratings"]) ** 2).sum(), {}

    def targets(self, batch: Batch) -> float:
        return len(batch["ratings"])


def standardised(judged: list[Judged]) -> list[Judged]:
    """The judgements with the ratings of each source around 0, in standard deviations; the two answers of a preference
    have 1 and −1."""
    by_source: dict[str, list[float]] = {}
    for each in judged:
        by_source.setdefault(each.source, []).append(each.rating)
    scales = {source: (float(np.mean(ratings)), max(float(np.std(ratings)), 1e-6))
              for source, ratings in by_source.items()}
    return [replace(each, rating=(each.rating - scales[each.source][0]) / scales[each.source][1]) for each in judged]
