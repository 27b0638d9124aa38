"""Direct preference optimisation (Rafailov et al. 2023), and its variants IPO (Azar et al. 2024) and KTO (Ethayarajh et
al. 2024), on preferences that people gave, or on the best and the worst of the policy's own completions by the reward.

Shapes: P pairs; T tokens, prompt and completion; the two answers of a pair are the second dimension of what a batch
holds, the preferred one first.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from genai_core.data.chat import END_OF_TEXT, token_id
from genai_core.data.instruction.preferences import Answer, Preference
from genai_core.data.tokens.batches import epoch_rows, pad
from genai_core.inference.sequences import Sequences, in_sequence, token_log_probs
from genai_core.models.language_model import LanguageModel
from genai_core.training.alignment.method import Alignment
from genai_core.training.objectives.objective import Batch

Parts = tuple[list[Preference], Tensor, Tensor, Batch]
"""Pairs, whether each counts (P,), z_0 of KTO, and what else the curves tell."""
Loss = Callable[[Tensor, Tensor, float, Tensor], Tensor]
"""Log-ratios (P, 2) to the reference, numbers of tokens (P, 2), β and the KL z_0 to the loss of each pair (P,)."""


class Dpo(Alignment):
    """Makes the preferred of two answers likelier than the other, measured against the reference."""

    def __init__(self, *arguments: Any, preferences: Sequence[Preference] = (), **named: Any):
        super().__init__(*arguments, **named)
        self.preferences = preferences
        self.settings = self.config.dpo
        self.loss_of = LOSSES[self.settings.variant]

    def batch(self, step: int) -> Batch:
        pairs, counted, kl, others = self._given(step) if self.settings.pairs == "given" else self._sampled(step)
        answered = [(pair.prompt, answer) for pair in pairs for answer in (pair.chosen, pair.rejected)]
        sequences = self._sequences(answered)
        reference = self._sequence_log_probs(self.reference, sequences)
        total = self.sums(counted.sum()).clamp(min=1)
        paired = {name: tensor.unflatten(0, (-1, 2)) for name, tensor in sequences.items()}
        return {**paired, "reference_log_probs": reference.unflatten(0, (-1, 2)), "counted": counted,
                "total": total.expand(len(pairs)), "kl": kl.expand(len(pairs)), **others,
                **self.replay_rows(step, total)}

    def _given(self, step: int) -> Parts:
        rows = epoch_rows(len(self.preferences), step, self.config.batch_size // 2, self.config.seed)
        own = self.ranks.part(len(rows))
        pairs, before = ([self.preferences[row] for row in some[own].tolist()] for some in (rows, np.roll(rows, 1)))
        return pairs, torch.ones(len(pairs), device=self.device), self._mismatched_kl(pairs, before), {}

    def _sampled(self, step: int) -> Parts:
        """The best and the worst completion of each prompt, which count where the reward tells them apart."""
        size = self.config.group_size
        rollout, rewards, outcome = self.sample(step, size)
        groups = rewards.view(-1, size)
        pairs = []
        for group, (best, worst) in enumerate(zip(groups.argmax(1).tolist(), groups.argmin(1).tolist(), strict=True)):
            answers = [rollout.completion_ids[group * size + number] for number in (best, worst)]
            pairs.append(Preference(rollout.prompt_ids[group * size],
                                    *(Answer(ids, [True] * len(ids)) for ids in answers)))
        kl = torch.zeros((), device=self.device)
        if self.settings.variant == "kto":      # z_0 is a mean over what the policy says, and this is
            reference = self._sequence_log_probs(self.reference, rollout.sequences)
            kl = self._mean(self._sequence_log_probs(self.policy, rollout.sequences) - reference)
        return pairs, (groups.amax(1) > groups.amin(1)).float(), kl, outcome

    def _sequences(self, answered: list[tuple[list[int], Answer]]) -> Sequences:
        pad_id = token_id(self.tokenizer, END_OF_TEXT)
        ids, there = pad([answer.ids for _, answer in answered], pad_id, "right")
        mask = torch.zeros_like(there)
        mask[there] = torch.tensor([flag for _, answer in answered for flag in answer.mask])
        return in_sequence([prompt for prompt, _ in answered], ids.to(self.device), mask.to(self.device), pad_id)

    def _sequence_log_probs(self, model: LanguageModel, sequences: Sequences) -> Tensor:
        """log π of each completion (N,)."""
        return (self.log_probs(model, sequences) * sequences["completion_mask"][:, 1:]).sum(1)

    def _mismatched_kl(self, pairs: list[Preference], before: list[Preference]) -> Tensor:
        """z_0, the mean of log π(y' | x) − log π_ref(y' | x) with y' the answers to other prompts of the batch, as an
        estimate of KL(π ‖ π_ref) (Ethayarajh et al. 2024, section 4.1); 0 where the loss has none."""
        if self.settings.variant != "kto":
            return torch.zeros((), device=self.device)
        room = self.policy.context_length
        sequences = self._sequences([(pair.prompt, answer.up_to(room - len(pair.prompt)))
                                     for pair, other in zip(pairs, before, strict=True)
                                     for answer in (other.chosen, other.rejected)])
        reference = self._sequence_log_probs(self.reference, sequences)
        return self._mean(self._sequence_log_probs(self.policy, sequences) - reference)

    def _mean(self, log_ratios: Tensor) -> Tensor:
        """Mean over all ranks, and at least 0, as a divergence is."""
        return (self.sums(log_ratios.sum()) / (len(log_ratios) * self.ranks.count)).clamp(min=0)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        sequences = {name: batch[name].flatten(0, 1) for name in ("ids", "completion_mask", "position_ids", "mask")}
        log_probs, _ = token_log_probs(self.policy, sequences, self.config.temperature, entropy=False)
        mask = sequences["completion_mask"][:, 1:].float()
        log_ratios = (log_probs * mask).sum(1).unflatten(0, (-1, 2)) - batch["reference_log_probs"]
        losses = self.loss_of(log_ratios, mask.sum(1).unflatten(0, (-1, 2)), self.settings.beta, batch["kl"][0])
        margins = (log_ratios[:, 0] - log_ratios[:, 1]).detach()
        others = {"accuracy": ((margins > 0) * batch["counted"]).sum(),
                  "reward_margin": (self.settings.beta * margins * batch["counted"]).sum()}
        return self.with_replay((losses * batch["counted"]).sum(), others, batch)

    def targets(self, batch: Batch) -> Tensor:
        """This rank's part of the number of pairs of which one is better."""
        return batch["total"][0] / self.ranks.count

    def size(self, batch: Batch) -> int:
        return len(batch.get("rewards", batch["ids"].flatten(0, 1)))


def sigmoid_loss(log_ratios: Tensor, lengths: Tensor, beta: float, kl: Tensor) -> Tensor:
    # −log σ(β [log π(y_w)/π_ref(y_w) − log π(y_l)/π_ref(y_l)])            Rafailov et al. 2023, eq. 7
    return -F.logsigmoid(beta * (log_ratios[:, 0] - log_ratios[:, 1]))


def ipo_loss(log_ratios: Tensor, lengths: Tensor, beta: float, kl: Tensor) -> Tensor:
    # (h − 1/(2τ))²,  h the same difference, each part by the token as in TRL            Azar et al. 2024, eq. 17
    by_token = log_ratios / lengths.clamp(min=1)
    return (by_token[:, 0] - by_token[:, 1] - 1 / (2 * beta)) ** 2


def kto_loss(log_ratios: Tensor, lengths: Tensor, beta: float, kl: Tensor) -> Tensor:
    # 1 − σ(β (r_w − z_0)) and 1 − σ(β (z_0 − r_l)), their mean            Ethayarajh et al. 2024, eq. 8, λ_D = λ_U = 1
    desirable = 1 - torch.sigmoid(beta * (log_ratios[:, 0] - kl))
    undesirable = 1 - torch.sigmoid(beta * (kl - log_ratios[:, 1]))
    return (desirable + undesirable) / 2


LOSSES: dict[str, Loss] = {"sigmoid": sigmoid_loss, "ipo": ipo_loss, "kto": kto_loss}
