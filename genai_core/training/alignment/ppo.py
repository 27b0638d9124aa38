"""Proximal policy optimisation with a value head, as Ouyang et al. 2022 and TRL's former PPOTrainer have it.

A prompt has one completion. The KL penalty is a part of each token's reward, so what counts as an advantage is told by
a value: a linear head on the policy's own hidden states, which is trained beside it and left out of the saved model.
Each batch of completions serves for several steps.

Shapes: B completions; T tokens, prompt and completion.
"""

import torch
from torch import Tensor, nn

from genai_core.hardware import autocast
from genai_core.inference.sequences import Sequences, log_probs_and_entropy
from genai_core.models.language_model import LanguageModel
from genai_core.training.alignment.grpo import clipped_surrogate
from genai_core.training.alignment.method import Alignment
from genai_core.training.objectives.objective import Batch


class PolicyAndValue(nn.Module):
    """A policy, and the value of each of its states: what reward it expects for the tokens to come."""

    def __init__(self, policy: LanguageModel):
        super().__init__()
        self.policy = policy
        self.value = nn.Linear(policy.config.hidden_size, 1, device=next(policy.parameters()).device)
        nn.init.zeros_(self.value.weight)
        nn.init.zeros_(self.value.bias)

    def forward(self, sequences: Sequences, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probability of each token from the second on, entropy of its distribution, and value of the state before
        it, all (B, T − 1)."""
        states = self.policy.hidden(sequences["ids"], sequences["position_ids"], sequences["mask"])
        log_probs, entropy = log_probs_and_entropy(self.policy, states, sequences, temperature)
        return log_probs, entropy, self.value(states)[:, :-1, 0].float()


class Ppo(Alignment):
    """Clipped policy gradient on advantages over a learned value, with the KL to the reference taken off the reward."""

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.steps_of_a_batch = self.config.ppo.epochs
        self.with_value = PolicyAndValue(self.policy)
        self._sampled: tuple[int, Batch] = -1, {}

    @property
    def trained(self) -> nn.Module:
        return self.with_value

    def batch(self, step: int) -> Batch:
        number = step // self.config.ppo.epochs
        # also of a number that is there: training may have gone back, and what was sampled since counts no more
        if step % self.config.ppo.epochs == 0 or self._sampled[0] != number:
            self._sampled = number, self._sample(number)
        batch = self._sampled[1]
        return {**batch, **self.replay_rows(step, self.sums(batch["completion_mask"][:, 1:].sum()))}

    @torch.no_grad()
    def _sample(self, number: int) -> Batch:
        settings = self.config.ppo
        rollout, scores, outcome = self.sample(number, 1)
        mask = rollout.target_mask
        sampled = self.sampled_log_probs(rollout)
        with autocast(self.device, self.precision):
            values = self.with_value(rollout.sequences, self.config.temperature)[2] * mask
        log_ratios, beta = torch.zeros_like(sampled), torch.zeros((), device=self.device)
        if penalty := self.penalty(rollout, sampled):
            log_ratios, beta = sampled - penalty.pop("reference_log_probs"), penalty["kl_weight"][0]
        rewards = token_rewards(scores, log_ratios, mask, beta)
        advantages = generalised_advantages(rewards, values, mask, settings.discount, settings.gae_lambda)
        return {**rollout.sequences, "sampled_log_probs": sampled, "values": values, "returns": advantages + values,
                "advantages": self._whitened(advantages, mask), **penalty, **outcome}

    def _whitened(self, advantages: Tensor, mask: Tensor) -> Tensor:
        """Advantages with mean 0 and variance 1 over all tokens of the batch, of all ranks."""
        count = self.sums(mask.sum())
        mean = self.sums((advantages * mask).sum()) / count
        variance = self.sums(((advantages - mean) ** 2 * mask).sum()) / (count - 1).clamp(min=1)
        return (advantages - mean) * torch.rsqrt(variance + 1e-8) * mask

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        # L = Σ_t −min(ρ A, clip(ρ, 1 − ε, 1 + ε) A) + c_v ½ max((V − R)², (V_clip − R)²)
        # ρ = π(x_t) / π_sampled(x_t)                              Schulman et al. 2017, eq. 7 and 9
        # V_clip = V_sampled + clip(V − V_sampled, −ε_v, ε_v)      TRL's PPOTrainer; the loop divides by the tokens
        settings = self.config.ppo
        mask = batch["completion_mask"][:, 1:].float()
        log_probs, entropy, values = self.with_value(batch, self.config.temperature)
        surrogate = clipped_surrogate(log_probs, batch["sampled_log_probs"], batch["advantages"],
                                      self.config.clip_ratio)
        clipped = batch["values"] + (values - batch["values"]).clamp(-settings.value_clip, settings.value_clip)
        squared = torch.maximum((values - batch["returns"]) ** 2, (clipped - batch["returns"]) ** 2)
        value_loss = (0.5 * squared * mask).sum()
        loss = settings.value_coefficient * value_loss - (surrogate * mask).sum()
        others = {"value_loss": value_loss.detach(), "entropy": (entropy * mask).sum()}
        return self.with_replay(loss, others, batch)


def token_rewards(scores: Tensor, log_ratios: Tensor, mask: Tensor, beta: Tensor) -> Tensor:
    """Rewards (B, T − 1) of the tokens of completions: −β (log π − log π_ref) of each, and at the last one the score of
    the whole (Ouyang et al. 2022, eq. 2)."""
    places = torch.arange(mask.shape[1], device=mask.device)
    last = (places * mask).argmax(1)
    return -beta * log_ratios * mask + scores[:, None] * (places[None] == last[:, None])


def generalised_advantages(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> Tensor:
    """Advantages (B, T − 1) of the tokens of completions, 0 elsewhere (Schulman et al. 2016, eq. 11 and 16).

    A_t = δ_t + γ λ A_{t+1},  δ_t = r_t + γ V_{t+1} − V_t;  after the last token V and A are 0.
    """
    advantages, following, next_values = [], torch.zeros_like(rewards[:, 0]), torch.zeros_like(rewards[:, 0])
    for place in reversed(range(rewards.shape[1])):
        delta = rewards[:, place] + gamma * next_values - values[:, place]
        following = (delta + gamma * lam * following) * mask[:, place]
        next_values = values[:, place] * mask[:, place]
        advantages.append(following)
    return torch.stack(advantages[::-1], dim=1)
