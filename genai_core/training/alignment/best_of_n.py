"""Fine-tuning on the best of N samples (RAFT, Dong et al. 2023, algorithm 1; rejection sampling, Touvron et al. 2023).

Each step samples `group_size` completions of each prompt with the policy itself, keeps the one with the highest reward
and learns it as if a person had written it.
"""

import torch
from torch import Tensor

from genai_core.inference.sequences import token_log_probs
from genai_core.training.alignment.method import Alignment
from genai_core.training.objectives.objective import Batch


class BestOfN(Alignment):
    """Cross-entropy of the tokens of the best completion of each prompt."""

    def batch(self, step: int) -> Batch:
        size = self.config.group_size
        rollout, rewards, outcome = self.sample(step, size)
        best = rewards.view(-1, size).argmax(1) + torch.arange(0, len(rewards), size, device=rewards.device)
        chosen = {name: tensor[best] for name, tensor in rollout.sequences.items()}
        return {**chosen, "best_rewards": rewards[best], **outcome,
                **self.replay_rows(step, self.sums(chosen["completion_mask"][:, 1:].sum()))}

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        # L = −Σ_t log π(y*_t),  y* = argmax_i r(y_i),  y_1 … y_N ~ π        Dong et al. 2023, eq. 3
        mask = batch["completion_mask"][:, 1:].float()
        log_probs, entropy = token_log_probs(self.policy, batch, self.config.temperature)
        return self.with_replay(-(log_probs * mask).sum(), {"entropy": (entropy * mask).sum()}, batch)

    def size(self, batch: Batch) -> int:
        return len(batch["rewards"])

    def figures(self, batch: Batch) -> dict[str, float]:
        return {**super().figures(batch), "best_reward": batch["best_rewards"].mean().item()}
