"""Group relative policy optimisation (Shao et al. 2024, eq. 3) on sampled continuations of film reviews.

The objective samples a batch with the policy itself, scores it with the reward model and compares it with the
reference; the loop does the rest. Each step makes one update, so the probability ratio starts at 1.
"""

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from genai_core.config.training import RlhfConfig
from genai_core.data.chat import END_OF_TEXT, end_ids, render_prompt, token_id
from genai_core.data.instructions import continuation_prompt, user_asks
from genai_core.inference.generate import Completions, Sampling, generate
from genai_core.inference.reward import OpenedRewardModel
from genai_core.models.language_model import LanguageModel
from genai_core.training.objectives.objective import Batch, Objective

MAX_KL_FACTOR = 100.0
"""Largest factor of the KL penalty's weight, reached at 3.2 times the target: beyond, one batch of stray samples would
drown the rewards of all others."""


class Grpo(Objective):
    """Clipped policy gradient with group-normalised rewards, minus a KL penalty to the reference."""

    unit = "completions"
    fixed_shapes = False

    def __init__(self, policy: LanguageModel, reference: LanguageModel, judge: OpenedRewardModel, tokenizer: Tokenizer,
                 openings: list[str], held_out: list[str], config: RlhfConfig, device: torch.device):
        self.policy, self.reference, self.judge, self.tokenizer = policy, reference, judge, tokenizer
        self.openings, self.held_out, self.config, self.device = openings, held_out, config, device
        self.steps = config.steps
        self.pad_id, self.end_ids = token_id(tokenizer, END_OF_TEXT), end_ids(tokenizer)
        tokens = config.steps * config.batch_size * (config.completion_tokens + 24)
        self.flops = 2 * tokens * policy.training_flops_per_token(config.completion_tokens + 24)
        self.evaluation_steps = frozenset({config.steps // 2})

    def batch(self, step: int) -> Batch:
        count = self.config.batch_size // self.config.group_size
        chosen = [self.openings[(step * count + number) % len(self.openings)] for number in range(count)]
        groups = [opening for opening in chosen for _ in range(self.config.group_size)]
        sampled = sample(self.policy, self.tokenizer, groups, self.config)
        rewards = self.judge.score(sampled.texts).view(count, -1)
        advantages = (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)
        ids, spoken = sampled.rows(self.pad_id)
        with torch.no_grad():
            reference = token_log_probabilities(self.reference, ids.to(self.device), sampled.positions(ids),
                                                sampled.mask(ids), self.config.temperature)[0]
        log_probabilities = sampled.log_probabilities(ids)
        kl = ((log_probabilities - reference) * spoken[:, 1:].to(self.device)).sum(1)
        return {"ids": ids.to(self.device), "spoken": spoken.to(self.device), "positions": sampled.positions(ids),
                "mask": sampled.mask(ids), "sampled": log_probabilities, "reference": reference,
                "advantages": advantages.flatten().to(self.device), "rewards": rewards.flatten().to(self.device),
                "kl": kl, "kl_weight": self._kl_weight(kl.mean()).expand(len(ids))}

    def _kl_weight(self, kl: Tensor) -> Tensor:
        """The weight of the penalty for a batch whose mean KL is `kl` nats a completion.

        Beyond the target it grows with the fourth power, up to MAX_KL_FACTOR, so that the policy settles near the
        target instead of drifting on: a controller without a state, where Ziegler et al. 2019 (section 2.2) adapt the
        weight from step to step.
        """
        factor = (kl / self.config.kl_target).clamp(min=1.0) ** 4
        return self.config.kl_coefficient * factor.clamp(max=MAX_KL_FACTOR)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        spoken = batch["spoken"][:, 1:].float()
        log_probabilities, entropy = token_log_probabilities(self.policy, batch["ids"], batch["positions"],
                                                             batch["mask"], self.config.temperature)
        ratio = (log_probabilities - batch["sampled"]).exp()
        clipped = ratio.clamp(1 - self.config.clip_ratio, 1 + self.config.clip_ratio)
        advantages = batch["advantages"][:, None]
        gain = torch.minimum(ratio * advantages, clipped * advantages)
        difference = batch["reference"] - log_probabilities
        penalty = difference.exp() - difference - 1          # Schulman's k3: unbiased, never negative
        loss = ((batch["kl_weight"][:, None] * penalty - gain) * spoken).sum()
        return loss, {"kl_per_token": (penalty.detach() * spoken).sum(), "entropy": (entropy.detach() * spoken).sum()}

    def targets(self, batch: Batch) -> float:
        return float(batch["spoken"][:, 1:].sum())

    def size(self, batch: Batch) -> int:
        return len(batch["ids"])

    def figures(self, batch: Batch) -> dict[str, float]:
        return {"reward": batch["rewards"].mean().item(), "kl": batch["kl"].mean().item(),
                "kl_weight": batch["kl_weight"][0].item(),
                "length": batch["spoken"].sum().item() / len(batch["spoken"])}

    def evaluate(self, step: int) -> dict[str, float]:
        # evaluation must not move what training samples next, and seeding seeds every device
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(self.config.seed + 1)
            figures = compare(self.policy, self.reference, self.judge, self.tokenizer, self.held_out, self.config)
        return {name: figures[name] for name in ("held_out_reward", "held_out_kl")}


class Sampled:
    """Prompts, their sampled completions, and the text that the reward model reads."""

    def __init__(self, prompts: list[list[int]], completions: Completions, texts: list[str], device: torch.device):
        self.prompts, self.completions, self.texts, self.device = prompts, completions, texts, device
        self.longest = max(map(len, prompts))

    def rows(self, pad_id: int) -> tuple[Tensor, Tensor]:
        """Ids (B, P + N), prompts padded on the left, and which of them the policy sampled."""
        left = torch.tensor([[pad_id] * (self.longest - len(prompt)) + prompt for prompt in self.prompts])
        ids = torch.cat([left, self.completions.ids.cpu()], dim=1)
        spoken = torch.cat([torch.zeros_like(left, dtype=torch.bool), self.completions.mask.cpu()], dim=1)
        return ids, spoken

    def _real(self, ids: Tensor) -> Tensor:
        lengths = torch.tensor([len(prompt) for prompt in self.prompts])
        return torch.arange(ids.shape[1])[None] >= (self.longest - lengths)[:, None]

    def positions(self, ids: Tensor) -> Tensor:
        return (self._real(ids).cumsum(1) - 1).clamp(min=0).to(self.device)

    def mask(self, ids: Tensor) -> Tensor:
        length = ids.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        own = torch.eye(length, dtype=torch.bool)
        return (causal & (self._real(ids)[:, None, :] | own))[:, None].to(self.device)

    def log_probabilities(self, ids: Tensor) -> Tensor:
        """Log-probabilities at sampling time (B, P + N − 1), 0 on prompts."""
        prompt = torch.zeros(len(ids), self.longest - 1, device=self.device)
        return torch.cat([prompt, self.completions.log_probabilities], dim=1)


def sample(policy: LanguageModel, tokenizer: Tokenizer, openings: list[str], config: RlhfConfig) -> Sampled:
    """One continuation of each opening, sampled at the config's temperature from the whole vocabulary."""
    rendered = [render_prompt(user_asks(continuation_prompt(opening))) for opening in openings]
    prompts = [encoding.ids for encoding in tokenizer.encode_batch_fast(rendered, add_special_tokens=False)]
    completions = generate(policy, prompts, config.completion_tokens, end_ids(tokenizer),
                           pad_id=token_id(tokenizer, END_OF_TEXT), sampling=Sampling(config.temperature))
    said = tokenizer.decode_batch([row[mask].tolist() for row, mask in
                                   zip(completions.ids, completions.mask, strict=True)], skip_special_tokens=True)
    texts = [f"{opening} {text.strip()}" for opening, text in zip(openings, said, strict=True)]
    return Sampled(prompts, completions, texts, completions.ids.device)


def token_log_probabilities(model: LanguageModel, ids: Tensor, positions: Tensor, mask: Tensor, temperature: float
                            ) -> tuple[Tensor, Tensor]:
    """Log-probability of each next token and entropy of its distribution, both (B, T − 1), at a temperature."""
    logits = model(ids, positions, mask)[:, :-1].float() / temperature
    log_probabilities = F.log_softmax(logits, dim=-1)
    entropy = -(log_probabilities.exp() * log_probabilities).sum(-1)
    return log_probabilities.gather(-1, ids[:, 1:, None])[..., 0], entropy


@torch.no_grad()
def compare(policy: LanguageModel, reference: LanguageModel, judge: OpenedRewardModel, tokenizer: Tokenizer,
            openings: list[str], config: RlhfConfig) -> dict[str, float]:
    """Reward, its standard deviation, length and KL of the policy on `openings`; KL in nats a completion, from the
    log-probabilities of the policy's own samples."""
    sampled = sample(policy, tokenizer, openings, config)
    rewards = judge.score(sampled.texts)
    ids, spoken = sampled.rows(token_id(tokenizer, END_OF_TEXT))
    arguments = (ids.to(sampled.device), sampled.positions(ids), sampled.mask(ids), config.temperature)
    own, entropy = token_log_probabilities(policy, *arguments)
    other, _ = token_log_probabilities(reference, *arguments)
    counted = spoken[:, 1:].to(sampled.device).float()
    return {"held_out_reward": rewards.mean().item(), "held_out_reward_deviation": rewards.std().item(),
            "held_out_kl": ((own - other) * counted).sum().item() / len(openings),
            "held_out_entropy": ((entropy * counted).sum() / counted.sum()).item(),
            "held_out_length": counted.sum().item() / len(openings),
            "distinct_words": len({word for text in sampled.texts for word in text.split()})
            / max(1, sum(len(text.split()) for text in sampled.texts))}
