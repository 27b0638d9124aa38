"""What the methods of alignment have in common: a policy that starts as the reference, prompts, rewards, the KL between
the two, and the rows of the fine-tuning data by which the policy keeps what it can do.

A method says what a batch is and what its loss is (`grpo.py`, `ppo.py`, `dpo.py`, `best_of_n.py`).
"""

from functools import cached_property

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from genai_core.config.training import RlhfConfig
from genai_core.data.chat import fit_prompt
from genai_core.data.instruction.examples import Example
from genai_core.data.instruction.packing import PackedRows
from genai_core.data.tokens.batches import IGNORED, epoch_rows
from genai_core.errors import TrainingDiverged
from genai_core.hardware import autocast, choose_precision
from genai_core.inference.sequences import Sequences, token_log_probs
from genai_core.models.language_model import LanguageModel
from genai_core.models.masks import packed_mask
from genai_core.rewards.reward import Rewards
from genai_core.training.alignment.monitors import MONITORED, Verdict, verdict
from genai_core.training.alignment.rollouts import (
    Gold,
    Rollout,
    evaluate_policy,
    penalised,
    sample_rollout,
    uniform,
)
from genai_core.training.alignment.samplers import OwnSampler, Sampler
from genai_core.training.curves import Curves
from genai_core.training.objectives.objective import Batch, Objective
from genai_core.training.ranks import Ranks

LENGTHS_OF = 256
"""Number of prompts whose length is taken for that of all, for the estimate of the work."""
MAX_KL_FACTOR = 100.0
"""Largest factor of the KL penalty's weight, reached at 3.2 times the target: beyond, one batch of stray samples would
drown the rewards of all others."""
EACH = "reward/"
"""Before the names of the rewards in curves, where they are several parts of one sum."""
CURVES = (*MONITORED, "held_out_truncated")
"""Figures on held-out prompts that become curves, beside those of each reward."""
SAMPLER_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.05}
"""Mean difference, in nats a token, of the log-probabilities that the sampler and the trainer may give to what was
sampled. The sampler computes in float32; bfloat16 has three digits."""
COMPARED = 8
"""Completions of each batch that are compared where the sampler has a copy of the weights."""


class Alignment(Objective):
    """Raises the reward of the policy's answers, held near the reference on rows of the fine-tuning data."""

    unit = "completions"
    fixed_shapes = False
    sampled = True
    monitored = True

    def __init__(self, policy: LanguageModel, reference: LanguageModel, rewards: Rewards,
                 tokenizer: Tokenizer, prompts: list[Example], held_out: list[Example], replay: PackedRows | None,
                 config: RlhfConfig, device: torch.device, gold: Gold | None = None, sampler: Sampler | None = None):
        """`replay` is None where `config.replay_rows` is 0."""
        self.policy = policy
        self.reference = reference
        self.rewards = rewards
        self.tokenizer = tokenizer
        self.prompts = prompts
        self.held_out = held_out
        self.replay = replay
        self.config = config
        self.device = device
        self.gold = gold
        self.sampler = sampler or OwnSampler(tokenizer, config)
        self.precision = choose_precision(device)
        self.ranks = Ranks.current()
        self.steps = config.steps
        self._sampler_agrees = False
        self._measured: dict[int, dict[str, float]] = {}
        """Figures on the held-out prompts by the number of steps after which they were taken."""
        some = [fit_prompt(tokenizer, prompt.asked, policy.context_length)[0] for prompt in prompts[:LENGTHS_OF]]
        length = sum(map(len, some)) // len(some) + config.completion_tokens
        tokens = config.batch_size * length
        # sampling and scoring a batch take about as much as training on it
        self.flops = (config.batches + config.steps) * tokens * policy.training_flops_per_token(length)
        if replay is not None:
            length = replay.ids.shape[1]
            tokens = config.steps * config.replay_rows * length
            # and the reference reads them too, forward alone
            self.flops += 4 / 3 * tokens * policy.training_flops_per_token(length)
        looks = range(config.monitors.every_steps, config.steps, config.monitors.every_steps)
        self.evaluation_steps = frozenset({config.steps // 2, *looks})

    @property
    def trained(self) -> nn.Module:
        """The module that is trained."""
        return self.policy

    def sample(self, step: int, of_each: int) -> tuple[Rollout, Tensor, Batch]:
        """This rank's share of the batch_size completions of a step, `of_each` of them to each prompt, their rewards
        (B,), and what the curves tell of all of them, whichever are learned from. Raises TrainingDiverged where the
        sampler is not the policy that is trained, and RewardFailed where a reward gives no number."""
        count = self.config.batch_size // of_each
        chosen = [self.prompts[(step * count + number) % len(self.prompts)] for number in range(count)]
        repeated = [prompt for prompt in chosen[self.ranks.part(count)] for _ in range(of_each)]
        draws = uniform(self.config, step)[self.ranks.part(self.config.batch_size)]
        rollout = sample_rollout(self.policy, self.tokenizer, repeated, self.config, draws, self.sampler)
        with autocast(self.device, self.precision):
            scores = self.rewards.score(repeated, rollout.answers)
        truncated = (~rollout.finished).float()
        rewards = penalised(scores.total.to(self.device), rollout, self.config)
        each = {f"{EACH}{name}": values.to(self.device) for name, values in scores.parts.items()}
        agreement: Batch = {}
        if self.sampler.holds_a_copy:      # which every step has to renew
            compared = COMPARED if self._sampler_agrees else None
            agreement = {"sampler_difference": self._require_agreement(rollout, compared).expand(len(rewards))}
        elif not self._sampler_agrees:
            self._require_agreement(rollout)
        self._sampler_agrees = True
        return rollout, rewards, {"rewards": rewards, **each, "truncated": truncated,
                                  "lengths": rollout.target_mask.sum(1), **agreement}

    def _require_agreement(self, rollout: Rollout, count: int | None = None) -> Tensor:
        """The ratio of probabilities starts at 1: what was sampled is as likely to the trainer as to the sampler, of
        the first `count` completions or of all. The mean difference of their log-probabilities in nats a token."""
        sequences = {name: tensor[:count] for name, tensor in rollout.sequences.items()}
        mask = rollout.target_mask[:count]
        difference = (self.log_probs(self.policy, sequences) - rollout.log_probs[:count]).abs() * mask
        mean = difference.sum() / mask.sum()
        tolerance = SAMPLER_TOLERANCE.get(self.precision, 0.05)
        if not mean <= tolerance:
            other = "Take rlhf.sampler=own" if self.sampler.holds_a_copy else "Decode with PyTorch (GENAI_NATIVE=0)"
            raise TrainingDiverged(
                f"rlhf: what was sampled has other log-probabilities in training, by {mean.item():.2g} nats a token "
                f"where {tolerance:g} is rounding: the ratio of the first step would not be 1. {other} to tell whether "
                "the sampler is at fault")
        return mean

    @torch.no_grad()
    def log_probs(self, model: LanguageModel, sequences: Sequences) -> Tensor:
        """Log-probabilities (B, T − 1) in the precision that the loss is computed in."""
        with autocast(self.device, self.precision):
            return token_log_probs(model, sequences, self.config.temperature, entropy=False)[0]

    def sampled_log_probs(self, rollout: Rollout) -> Tensor:
        """Log-probabilities (B, T − 1) of a rollout in the precision of the loss, so that the ratio starts at 1 to its
        last digit: the sampler's own, but where training is in another precision than sampling."""
        if self.precision is torch.float32:
            return rollout.log_probs
        return self.log_probs(self.policy, rollout.sequences) * rollout.target_mask

    def sums(self, value: Tensor) -> Tensor:
        """A scalar, added up over all ranks."""
        return self.ranks.all_reduce({"value": value})["value"]

    def penalty(self, rollout: Rollout, sampled: Tensor) -> Batch:
        """What a KL penalty is made of, for completions with log-probabilities `sampled` (B, T − 1): those that the
        reference gives them (B, T − 1), the KL of each in nats, and the weight of the penalty, both (B,). Nothing where
        there is no penalty: the reference then reads no completion that is trained on."""
        if not self.config.kl_coefficient:
            return {}
        reference = self.log_probs(self.reference, rollout.sequences)
        kl = ((sampled - reference) * rollout.target_mask).sum(1)
        weight = self.kl_weight(self.sums(kl.sum()) / self.config.batch_size)
        return {"reference_log_probs": reference, "kl": kl, "kl_weight": weight.expand(len(kl))}

    def kl_weight(self, kl: Tensor) -> Tensor:
        """The weight of the penalty for a batch whose mean KL is `kl` nats a completion.

        Beyond the target it grows with the fourth power, up to MAX_KL_FACTOR, so that the policy settles near the
        target instead of drifting on: a controller without a state, where Ziegler et al. 2019 (section 2.2) adapt the
        weight from step to step.
        """
        factor = (kl / self.config.kl_target).clamp(min=1.0) ** 4
        return self.config.kl_coefficient * factor.clamp(max=MAX_KL_FACTOR)

    def replay_rows(self, step: int, targets: Tensor) -> Batch:
        """Rows of the fine-tuning data, weighted so that their mean divergence counts as the config says beside the
        mean over the `targets` of all ranks, which the loop divides all by."""
        if not self.config.replay_rows or self.replay is None:
            return {}
        chosen = epoch_rows(len(self.replay.ids), step, self.config.replay_rows, self.config.seed)
        rows = self.replay.take(chosen, self.device)
        rows["weights"] *= self.config.replay_coefficient * targets / rows["weights"].sum()
        return {f"replay_{name}": tensor for name, tensor in self.ranks.share(rows).items()}

    def with_replay(self, loss: Tensor, others: dict[str, Tensor], batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """A loss with γ KL(π_ref ‖ π) of the replayed rows (Li & Hoiem 2016, learning without forgetting; PPO-ptx of
        Ouyang et al. 2022, eq. 2, has −log π of their tokens)."""
        if "replay_ids" not in batch:
            return loss, others
        rows = {name.removeprefix("replay_"): tensor for name, tensor in batch.items() if name[:7] == "replay_"}
        divergence = weighted_divergence(self.reference, self.policy, rows)
        return loss + divergence, {**others, "replay_divergence": divergence.detach()}

    def targets(self, batch: Batch) -> float | Tensor:
        return batch["completion_mask"][:, 1:].sum()

    def size(self, batch: Batch) -> int:
        return len(batch["ids"])

    def figures(self, batch: Batch) -> dict[str, float]:
        if "rewards" not in batch:
            return {}
        each = {name: values.mean().item() for name, values in batch.items() if name.startswith(EACH)}
        if "sampler_difference" in batch:
            each["sampler_difference"] = batch["sampler_difference"][0].item()
        penalty: dict[str, float] = {}
        if "kl_weight" in batch:      # of methods that take the KL off the reward or add it to the loss
            penalty = {"kl": batch["kl"].mean().item(), "kl_weight": batch["kl_weight"][0].item()}
        return {"reward": batch["rewards"].mean().item(), **each, "truncated": batch["truncated"].mean().item(),
                "length": batch["lengths"].double().mean().item(), **penalty}

    def evaluate(self, step: int) -> dict[str, float]:
        figures = self._measured[step] = self.held_out_figures(self.policy)
        return {name: value for name, value in figures.items()
                if name in CURVES or name.startswith(f"held_out_{EACH}")}

    def verdict(self, curves: Curves) -> Verdict | None:
        return verdict(self.config.monitors, self.before, curves)

    @cached_property
    def before(self) -> dict[str, float]:
        """Figures of the reference on the held-out prompts."""
        return self.held_out_figures(self.reference)

    def figures_after(self, steps: int) -> dict[str, float]:
        """Figures of the policy as it is after so many steps; taken now only where this process has not done so."""
        known = self._measured.get(steps) if steps else self.before
        return known or self.held_out_figures(self.policy)

    def held_out_figures(self, model: LanguageModel) -> dict[str, float]:
        """Figures of a model on the held-out prompts, of the same random numbers for each."""
        # evaluation must not move what training samples next, and seeding seeds every device
        kind = "mps" if self.device.type == "mps" else "cuda"
        with torch.random.fork_rng(range(torch.get_device_module(kind).device_count()), device_type=kind):
            torch.manual_seed(self.config.seed + 1)
            return evaluate_policy(model, self.reference, self.rewards, self.tokenizer, self.held_out, self.config,
                                   self.gold, self.sampler)


def weighted_divergence(reference: LanguageModel, policy: LanguageModel, rows: Batch) -> Tensor:
    """Σ w_t · KL(π_ref ‖ π) in nats over the targets of packed rows, on the whole vocabulary."""
    counted, mask = rows["targets"] != IGNORED, packed_mask(rows["segments"])

    def log_probs(model: LanguageModel) -> Tensor:
        states = model.hidden(rows["ids"], rows["position_ids"], mask)[counted]
        return F.log_softmax(model.logits(states).float(), dim=-1)

    with torch.no_grad():
        expected = log_probs(reference)
    divergence = F.kl_div(log_probs(policy), expected, reduction="none", log_target=True).sum(-1)
    return (divergence * rows["weights"][counted]).sum()
