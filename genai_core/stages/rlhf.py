"""The stage rlhf: raise the reward of the instruct model's answers, held near it."""

from pathlib import Path
from typing import Any

import torch

from genai_core.config.release import Gold
from genai_core.config.tasks import Lesson, Mixture
from genai_core.config.training import InstructConfig, RlhfConfig
from genai_core.context import Context, Reporter, Result
from genai_core.data.instruction.examples import Example, prompts_of
from genai_core.data.instruction.fine_tuning import training_rows
from genai_core.data.instruction.preferences import encoded_preferences
from genai_core.data.tokens.tokenizer import load_tokenizer
from genai_core.errors import InputError
from genai_core.evaluation.gold_reward import GoldReward, HeldOutGold, base_likelihood, gold_scorer
from genai_core.export.adapter import FOLDER, save_adapter
from genai_core.export.model_directory import load_model, save_model
from genai_core.hardware import choose_device
from genai_core.inference.reward import open_reward_model
from genai_core.models.adapters import add_adapters, merge, whole_on, without_adapters
from genai_core.models.contexts import require_context
from genai_core.rewards.reward import check_prompts, open_rewards
from genai_core.training.alignment.best_of_n import BestOfN
from genai_core.training.alignment.dpo import Dpo
from genai_core.training.alignment.grpo import Grpo
from genai_core.training.alignment.method import Alignment
from genai_core.training.alignment.ppo import Ppo
from genai_core.training.alignment.samplers import OwnSampler, Sampler
from genai_core.training.alignment.vllm_sampler import VllmSampler
from genai_core.training.loop import train

METHODS: dict[str, type[Alignment]] = {"grpo": Grpo, "ppo": Ppo, "dpo": Dpo, "best_of_n": BestOfN}

SAMPLER_LOG = "vllm"
"""Folder beside the checkpoints for the log of a vLLM that samples; it stays where the training fails."""


def run(config: RlhfConfig, *, instruct: Path, cleaned: Path, tokens: Path, questions: Mixture, mixture: Mixture,
        fine_tuning: InstructConfig, gold: Gold, judged: tuple[str, ...], out_dir: Path, context: Context,
        reward: Path | None = None) -> Result:
    """Train a copy of the model directory `instruct` against the rewards of the config, of which the reward model
    `reward` may be one, on `questions` and the rows that `instruct` was fine-tuned on; write it to `out_dir`.

    Preferences that the data gives are those of the sources `judged`, but the share that is the gold reward's.
    Everything is measured on questions of the validation split. Raises InputError when the training split has none or
    the validation split fewer than two, and when a reward gives no number for an answer.
    """
    objective = objective_of(config, instruct=instruct, reward=reward, cleaned=cleaned, tokens=tokens,
                             questions=questions, mixture=mixture, fine_tuning=fine_tuning, gold=gold, judged=judged,
                             device=choose_device(context.device), reporter=context.reporter,
                             log_dir=context.checkpoint_dir / SAMPLER_LOG)
    with objective.rewards, objective.sampler:
        before = objective.before
        trained = train(objective.trained, objective, config, context)
        after = objective.figures_after(int(trained.metrics["steps"]))
    if config.lora:
        save_adapter(objective.policy, out_dir / FOLDER)
        merge(objective.policy.to(whole_on(config.lora, objective.device)))      # the reference is no more what it was
    save_model(objective.policy, instruct, out_dir)
    gain = after["held_out_reward"] - before["held_out_reward"]
    deviations = gain / max(before["held_out_reward_deviation"], 1e-9)
    context.reporter.note(f"held-out reward {before['held_out_reward']:.3f} to {after['held_out_reward']:.3f}: "
                          f"{deviations:+.2f} standard deviations, KL {after['held_out_kl']:.2f} nats")
    result = trained.outcome(objective.policy, out_dir, figures=after | {
        f"instruct_{name}": value for name, value in before.items()} | {"reward_gain_deviations": deviations})
    return result._replace(measurements={**result.measurements, "sampler": objective.sampler.name})


def objective_of(config: RlhfConfig, *, instruct: Path, reward: Path | None, cleaned: Path, tokens: Path,
                 questions: Mixture, mixture: Mixture, fine_tuning: InstructConfig, gold: Gold, judged: tuple[str, ...],
                 device: torch.device, reporter: Reporter, log_dir: Path = Path()) -> Alignment:
    """The method that the config names, with a policy that is still the instruct model. Raises InputError as `run`."""
    policy = load_model(instruct, whole_on(config.lora, device))
    require_context("rlhf", config, policy.context_length)
    if config.lora:
        add_adapters(policy, config.lora, config.seed)
        policy.to(device)
    reference = without_adapters(policy) if config.lora else load_model(instruct, device).requires_grad_(False)
    tokenizer = load_tokenizer(instruct)
    held_out = _prompts(config, questions.lessons, cleaned, "validation", least=2)[:config.evaluation_prompts]
    prompts = _prompts(config, questions.lessons, cleaned, "train")
    check_prompts(config.rewards, [*prompts, *held_out])
    more: dict[str, Any] = {}
    if config.takes_given_pairs:
        more["preferences"] = encoded_preferences(cleaned, "train", judged, gold, tokenizer, policy.context_length,
                                                  reporter)
        if len(more["preferences"]) < 2:
            raise InputError("rlhf.dpo.pairs: given takes the preferences of the data, and the training split has none "
                             f"from {', '.join(judged) or 'any source'}; take sampled, or bring some")
    if config.monitors.gold_drop is not None:
        lessons = {**mixture.lessons, **questions.lessons}
        scorer = _gold_scorer(config, gold, lessons, judged, cleaned, reporter)
        asked = [example.subject if example.continues else example.asked[-1]["content"] for example in held_out]
        more["gold"] = scorer and HeldOutGold(GoldReward(scorer, base_likelihood(reference, tokenizer)), asked)
    replay = None
    if config.replay_rows:
        require_context("instruct", fine_tuning, policy.context_length)
        replay = training_rows(fine_tuning, mixture, tokenizer, cleaned, tokens, reporter)
    sampler: Sampler = OwnSampler(tokenizer, config)
    if config.sampler == "vllm":
        sampler = VllmSampler(tokenizer, config, instruct, log_dir / "server.log", device, reporter)
    rewards = open_rewards(config.rewards, open_reward_model(reward, device) if reward else None)
    more["sampler"] = sampler
    return METHODS[config.method](policy, reference, rewards, tokenizer, prompts, held_out, replay, config, device,
                                  **more)


def _prompts(config: RlhfConfig, lessons: dict[str, Lesson], cleaned: Path, split: str, least: int = 1
             ) -> list[Example]:
    """The prompts of a split, at least so many: the gain is measured in deviations, which one has none of."""
    found = prompts_of(lessons, config.tasks, cleaned, split, config.seed)
    if len(found) < least:
        raise InputError(f"rlhf.tasks: {', '.join(config.tasks)}: {len(found)} questions in the {split} split, and at "
                         f"least {least} are needed to be prompts; name other tasks, or bring more data")
    return [example for _, example in found]


def _gold_scorer(config: RlhfConfig, gold: Gold, lessons: dict[str, Lesson], judged: tuple[str, ...], cleaned: Path,
                 reporter: Reporter) -> Any:
    """What the monitor of the gold reward learns from; None where the task that teaches it is not in the mixture."""
    if gold.task and gold.task not in lessons:
        reporter.note(f"rlhf.monitors.gold_drop: there is no gold reward, since {gold.task} is not fine-tuned on")
        return None
    scorer, learned_from = gold_scorer(cleaned, gold, [config], lessons, judged)
    reporter.note(f"gold reward of the monitor: learned from {learned_from}")
    return scorer
