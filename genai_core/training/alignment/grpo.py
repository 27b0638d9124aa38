"""Group relative policy optimisation (Shao et al. 2024, eq. 3) on sampled answers to prompts.

Each step samples several completions of each prompt with the policy itself and makes one update, so the probability
ratio starts at 1.

Shapes: B completions, G of them to each prompt; T tokens, prompt and completion.
"""

import torch
from torch import Tensor

from genai_core.inference.sequences import token_log_probs
from genai_core.training.alignment.method import Alignment
from genai_core.training.objectives.objective import Batch


class Grpo(Alignment):
    """Clipped policy gradient with group-normalised rewards, held near the reference by a KL penalty."""

    def batch(self, step: int) -> Batch:
        rollout, rewards, outcome = self.sample(step, self.config.group_size)
        return {**rollout.sequences, "sampled_log_probs": rollout.log_probs,
                "advantages": group_advantages(rewards, self.config.group_size),
                **self.penalty(rollout, rollout.log_probs), **outcome,
                **self.replay_rows(step, self.sums(rollout.target_mask.sum()))}

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        # L = Σ_t −min(ρ A, clip(ρ, 1 − ε, 1 + ε) A) + β KL_t      Shao et al. 2024, eq. 3
        # ρ = π(x_t) / π_sampled(x_t)
        # KL_t = ½ d²,  d = log π(x_t) − log π_ref(x_t)            Schulman 2020 (k2)
        #     its gradient d ∇ log π is that of KL(π ‖ π_ref); as a loss, k3 has that of KL(π_ref ‖ π)
        # The loop divides by the number of sampled tokens         Yu et al. 2025 (DAPO), eq. 8
        mask = batch["completion_mask"][:, 1:].float()
        log_probs, entropy = token_log_probs(self.policy, batch, self.config.temperature)        # log π, (B, T − 1)
        # the one update of a batch starts at ratio 1, to the last digit only in the precision of the loss
        sampled = batch["sampled_log_probs"] if self.precision is torch.float32 else log_probs.detach()
        surrogate = clipped_surrogate(log_probs, sampled, batch["advantages"][:, None], self.config.clip_ratio)
        loss, others = -(surrogate * mask).sum(), {"entropy": (entropy * mask).sum()}
        if "kl_weight" in batch:
            beta = batch["kl_weight"][:, None]                               # β, (B, 1)
            log_ratio = log_probs - batch["reference_log_probs"]             # d
            loss = loss + (beta * log_ratio ** 2 / 2 * mask).sum()
            others["kl_per_token"] = (log_ratio.detach() * mask).sum()
        return self.with_replay(loss, others, batch)


def clipped_surrogate(log_probs: Tensor, sampled_log_probs: Tensor, advantages: Tensor, epsilon: float) -> Tensor:
    """min(ρ A, clip(ρ, 1 − ε, 1 + ε) A) of each token (B, T − 1) (Schulman et al. 2017, eq. 7)."""
    ratio = (log_probs - sampled_log_probs).exp()               # ρ
    clipped = ratio.clamp(1 - epsilon, 1 + epsilon)
    return torch.minimum(ratio * advantages, clipped * advantages)


def group_advantages(rewards: Tensor, group_size: int) -> Tensor:
    """A_i = (r_i − mean(r)) / (std(r) + 1e−4) within each group of `group_size` completions of one prompt (B,)."""
    groups = rewards.view(-1, group_size)
    return ((groups - groups.mean(1, keepdim=True)) / (groups.std(1, keepdim=True) + 1e-4)).flatten()
