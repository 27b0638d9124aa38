"""Group relative policy optimisation (Shao et al. 2024, eq. 3) on sampled answers to prompts.

The objective samples a batch with the policy itself, scores it with the reward model and compares it with the
reference; the loop does the rest. Each step makes one update, so the probability ratio starts at 1. Beside the
completions each step reads rows that the instruct model was fine-tuned on, and is held near what the reference predicts
there, so that the policy keeps what it can do (Li & Hoiem 2016, learning without forgetting).

Shapes: B completions, G of them to each prompt; T tokens, prompt and completion.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from genai_core.config.training import RlhfConfig
from genai_core.data.chat import END_OF_TEXT, end_ids, fit_prompt, token_id
from genai_core.data.instruction.examples import Example
from genai_core.data.instruction.judgements import Subject
from genai_core.data.instruction.packing import PackedRows
from genai_core.data.tokens.batches import IGNORED, epoch_rows, pad
from genai_core.inference.generate import Sampling, generate
from genai_core.inference.reward import OpenedRewardModel
from genai_core.models.language_model import LanguageModel
from genai_core.models.masks import left_padded_mask, packed_mask, position_ids_of
from genai_core.training.objectives.objective import Batch, Objective
from genai_core.training.ranks import Ranks
from genai_core.training.sharding import is_sharded

LENGTHS_OF = 256
"""Number of prompts whose length is taken for that of all, for the estimate of the work."""
MAX_KL_FACTOR = 100.0
"""Largest factor of the KL penalty's weight, reached at 3.2 times the target: beyond, one batch of stray samples would
drown the rewards of all others."""


@dataclass(frozen=True)
class Rollout:
    """Prompts, padded on the left, and the completions that a policy sampled."""

    ids: Tensor
    """Token ids (B, T)."""
    completion_mask: Tensor
    """(B, T): True on the tokens that the policy sampled."""
    position_ids: Tensor
    """Position ids (B, T): 0 at the first token of each prompt."""
    mask: Tensor
    """(B, 1, T, T): True where a token may attend to another."""
    log_probs: Tensor
    """Log-probabilities (B, T − 1) of the tokens from the second on, when they were sampled; 0 on prompts."""
    answers: list[str]
    """Text of the completions."""
    subjects: list[Subject]
    """What the reward model reads of each."""
    finished: Tensor
    """(B,): True for a completion that came to its end, False for one that was cut off."""

    @property
    def target_mask(self) -> Tensor:
        """Completion mask (B, T − 1) of the tokens from the second on, which are those that have a probability."""
        return self.completion_mask[:, 1:]


class Grpo(Objective):
    """Clipped policy gradient with group-normalised rewards, held near the reference on its completions and on rows of
    the fine-tuning data."""

    unit = "completions"
    fixed_shapes = False
    sampled = True

    def __init__(self, policy: LanguageModel, reference: LanguageModel, reward_model: OpenedRewardModel,
                 tokenizer: Tokenizer, prompts: list[Example], held_out: list[Example], replay: PackedRows,
                 config: RlhfConfig, device: torch.device):
        self.policy = policy
        self.reference = reference
        self.reward_model = reward_model
        self.tokenizer = tokenizer
        self.prompts = prompts
        self.held_out = held_out
        self.replay = replay
        self.config = config
        self.device = device
        self.ranks = Ranks.current()
        self.steps = config.steps
        some = [fit_prompt(tokenizer, prompt.asked, policy.context_length)[0] for prompt in prompts[:LENGTHS_OF]]
        length = sum(map(len, some)) // len(some) + config.completion_tokens
        tokens = config.steps * config.batch_size * length
        # twice: sampling and scoring take about as much as training
        self.flops = 2 * tokens * policy.training_flops_per_token(length)
        replayed = replay.ids.shape[1]
        # and the reference reads them too, forward alone
        self.flops += 4 / 3 * config.steps * config.replay_rows * replayed * policy.training_flops_per_token(replayed)
        self.evaluation_steps = frozenset({config.steps // 2})

    def batch(self, step: int) -> Batch:
        count = self.config.batch_size // self.config.group_size
        chosen = [self.prompts[(step * count + number) % len(self.prompts)] for number in range(count)]
        repeated = [prompt for prompt in chosen[self.ranks.part(count)] for _ in range(self.config.group_size)]
        draws = uniform(self.config, step)[self.ranks.part(self.config.batch_size)]
        rollout = sample_rollout(self.policy, self.tokenizer, repeated, self.config, draws)
        rewards = self.reward_model.score(rollout.subjects).to(self.device)
        rewards -= self.config.truncation_penalty * (~rollout.finished).float()
        with torch.no_grad():
            reference, _ = token_log_probs(self.reference, rollout.ids, rollout.position_ids, rollout.mask,
                                           self.config.temperature)
        kl = ((rollout.log_probs - reference) * rollout.target_mask).sum(1)      # of each completion, in nats
        return {"ids": rollout.ids, "completion_mask": rollout.completion_mask, "position_ids": rollout.position_ids,
                "mask": rollout.mask, "sampled_log_probs": rollout.log_probs, "reference_log_probs": reference,
                "advantages": group_advantages(rewards, self.config.group_size),
                "rewards": rewards, "kl": kl, "truncated": (~rollout.finished).float(),
                "kl_weight": self._kl_weight(self._sums(kl.sum()) / self.config.batch_size).expand(len(kl)),
                **self._replay_rows(step, self._sums(rollout.target_mask.sum()))}

    def _sums(self, value: Tensor) -> Tensor:
        """A scalar, added up over all ranks."""
        return self.ranks.all_reduce({"value": value})["value"]

    def _replay_rows(self, step: int, sampled: Tensor) -> Batch:
        """Rows of the fine-tuning data, weighted so that their mean divergence counts as the config says beside the
        mean over the `sampled` tokens, which the loop divides all by."""
        if not self.config.replay_rows:
            return {}
        chosen = epoch_rows(len(self.replay.ids), step, self.config.replay_rows, self.config.seed)
        rows = self.replay.take(chosen, self.device)
        rows["weights"] *= self.config.replay_coefficient * sampled / rows["weights"].sum()
        return {f"replay_{name}": tensor for name, tensor in self.ranks.share(rows).items()}

    def _kl_weight(self, kl: Tensor) -> Tensor:
        """The weight of the penalty for a batch whose mean KL is `kl` nats a completion.

        Beyond the target it grows with the fourth power, up to MAX_KL_FACTOR, so that the policy settles near the
        target instead of drifting on: a controller without a state, where Ziegler et al. 2019 (section 2.2) adapt the
        weight from step to step.
        """
        factor = (kl / self.config.kl_target).clamp(min=1.0) ** 4
        return self.config.kl_coefficient * factor.clamp(max=MAX_KL_FACTOR)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        # L = Σ_t −min(ρ A, clip(ρ, 1 − ε, 1 + ε) A) + β KL_t      Shao et al. 2024, eq. 3
        # ρ = π(x_t) / π_sampled(x_t)
        # KL_t = ½ d²,  d = log π(x_t) − log π_ref(x_t)            Schulman 2020 (k2)
        #     its gradient d ∇ log π is that of KL(π ‖ π_ref); as a loss, k3 has that of KL(π_ref ‖ π)
        # + γ KL(π_ref ‖ π) of replayed rows                       Li & Hoiem 2016; PPO-ptx has −log π of their tokens
        # The loop divides by the number of sampled tokens         Yu et al. 2025 (DAPO), eq. 8
        epsilon = self.config.clip_ratio
        mask = batch["completion_mask"][:, 1:].float()
        advantages = batch["advantages"][:, None]                            # A, (B, 1)
        beta = batch["kl_weight"][:, None]                                   # β, (B, 1)
        log_probs, entropy = token_log_probs(self.policy, batch["ids"], batch["position_ids"], batch["mask"],
                                             self.config.temperature)        # log π, (B, T − 1)
        ratio = (log_probs - batch["sampled_log_probs"]).exp()               # ρ
        clipped = ratio.clamp(1 - epsilon, 1 + epsilon)
        surrogate = torch.minimum(ratio * advantages, clipped * advantages)
        log_ratio = log_probs - batch["reference_log_probs"]                 # d
        loss = ((beta * log_ratio ** 2 / 2 - surrogate) * mask).sum()
        others = {"kl_per_token": (log_ratio.detach() * mask).sum(), "entropy": (entropy.detach() * mask).sum()}
        if "replay_ids" in batch:
            replay = {name.removeprefix("replay_"): tensor for name, tensor in batch.items() if name[:7] == "replay_"}
            divergence = weighted_divergence(self.reference, self.policy, replay)
            loss = loss + divergence
            others["replay_divergence"] = divergence.detach()
        return loss, others

    def targets(self, batch: Batch) -> Tensor:
        return batch["completion_mask"][:, 1:].sum()

    def size(self, batch: Batch) -> int:
        return len(batch["ids"])

    def figures(self, batch: Batch) -> dict[str, float]:
        return {"reward": batch["rewards"].mean().item(), "kl": batch["kl"].mean().item(),
                "kl_weight": batch["kl_weight"][0].item(),
                "truncated": batch["truncated"].mean().item(),
                "length": batch["completion_mask"].sum().item() / len(batch["completion_mask"])}

    def evaluate(self, step: int) -> dict[str, float]:
        # evaluation must not move what training samples next, and seeding seeds every device
        kind = "mps" if self.device.type == "mps" else "cuda"
        with torch.random.fork_rng(range(torch.get_device_module(kind).device_count()), device_type=kind):
            torch.manual_seed(self.config.seed + 1)
            figures = evaluate_policy(self.policy, self.reference, self.reward_model, self.tokenizer, self.held_out,
                                      self.config)
        return {name: figures[name] for name in ("held_out_reward", "held_out_kl")}


def group_advantages(rewards: Tensor, group_size: int) -> Tensor:
    """A_i = (r_i − mean(r)) / (std(r) + 1e−4) within each group of `group_size` completions of one prompt (B,)."""
    groups = rewards.view(-1, group_size)
    return ((groups - groups.mean(1, keepdim=True)) / (groups.std(1, keepdim=True) + 1e-4)).flatten()


def uniform(config: RlhfConfig, step: int) -> Tensor:
    """Numbers from 0 to 1 (B, N) that the tokens of a step's answers are drawn by: a function of the step, so that the
    same answers come about on however many ranks."""
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
    return torch.rand((config.batch_size, config.completion_tokens), generator=generator)


@torch.no_grad()
def sample_rollout(policy: LanguageModel, tokenizer: Tokenizer, prompts: list[Example], config: RlhfConfig,
                   draws: Tensor | None = None) -> Rollout:
    """One answer to each prompt, sampled at the config's temperature from the whole vocabulary, by `draws` (B, N) where
    they are given."""
    room = policy.context_length - config.completion_tokens
    encoded = [fit_prompt(tokenizer, prompt.asked, room)[0] for prompt in prompts]
    pad_id = token_id(tokenizer, END_OF_TEXT)
    ranks = Ranks.current()      # each token of a policy in parts gathers every block
    completions = generate(policy, encoded, config.completion_tokens, end_ids(tokenizer), pad_id=pad_id,
                           sampling=Sampling(config.temperature), draws=draws,
                           go_on=(lambda alive: ranks.on_any(alive)[0]) if is_sharded(policy) else bool)
    decoded = tokenizer.decode_batch(completions.unpadded(), skip_special_tokens=True)
    answers = [text.strip() for text in decoded]
    device, new_tokens = completions.ids.device, completions.ids.shape[1]
    prompt_ids, prompt_mask = (tensor.to(device) for tensor in pad(encoded, pad_id, "left"))
    # what pads a completion on the right comes after all that counts, so it needs no mask
    attention_mask = F.pad(prompt_mask, (0, new_tokens), value=True)
    ends = torch.tensor(sorted(end_ids(tokenizer)), device=device)
    return Rollout(
        ids=torch.cat([prompt_ids, completions.ids], dim=1),
        completion_mask=torch.cat([torch.zeros_like(prompt_mask), completions.mask], dim=1),
        position_ids=position_ids_of(attention_mask),
        mask=left_padded_mask(attention_mask),
        log_probs=F.pad(completions.log_probs, (prompt_ids.shape[1] - 1, 0)),
        answers=answers, subjects=[prompt.answered(answer) for prompt, answer in zip(prompts, answers, strict=True)],
        finished=torch.isin(completions.ids, ends).any(1))


def token_log_probs(model: LanguageModel, ids: Tensor, position_ids: Tensor, mask: Tensor, temperature: float
                    ) -> tuple[Tensor, Tensor]:
    """Log-probability of each token from the second on, and entropy of the distribution that it is drawn from, both
    (B, T − 1), at a temperature."""
    logits = model(ids, position_ids, mask)[:, :-1].float() / temperature
    log_probs = F.log_softmax(logits, dim=-1)
    entropy = -(log_probs.exp() * log_probs).sum(-1)
    return log_probs.gather(-1, ids[:, 1:, None])[..., 0], entropy


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


@torch.no_grad()
def evaluate_policy(policy: LanguageModel, reference: LanguageModel, reward_model: OpenedRewardModel,
                    tokenizer: Tokenizer, prompts: list[Example], config: RlhfConfig) -> dict[str, float]:
    """Figures of the policy's answers to `prompts`: their reward and its standard deviation, their length in tokens,
    entropy a token, the share that was cut off, the share of distinct words, and the KL to the reference in nats a
    completion."""
    rollout = sample_rollout(policy, tokenizer, prompts, config)
    rewards = reward_model.score(rollout.subjects)
    inputs = (rollout.ids, rollout.position_ids, rollout.mask, config.temperature)
    policy_log_probs, entropy = token_log_probs(policy, *inputs)
    reference_log_probs, _ = token_log_probs(reference, *inputs)
    mask = rollout.target_mask.float()
    words = [word for text in rollout.answers for word in text.split()]
    return {"held_out_reward": rewards.mean().item(), "held_out_reward_deviation": rewards.std().item(),
            "held_out_kl": ((policy_log_probs - reference_log_probs) * mask).sum().item() / len(prompts),
            "held_out_entropy": ((entropy * mask).sum() / mask.sum()).item(),
            "held_out_length": mask.sum().item() / len(prompts),
            "held_out_truncated": (~rollout.finished).float().mean().item(),
            "distinct_words": len(set(words)) / max(1, len(words))}
