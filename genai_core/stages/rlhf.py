"""The stage rlhf: raise the reward of the instruct model's answers, held near it by a KL penalty."""

from pathlib import Path

import torch

from genai_core.config.tasks import Lesson, Mixture
from genai_core.config.training import InstructConfig, RlhfConfig
from genai_core.context import Context, Result
from genai_core.data.instruction.examples import Example, prompts_of
from genai_core.data.instruction.fine_tuning import training_rows
from genai_core.data.tokens.tokenizer import load_tokenizer
from genai_core.errors import InputError
from genai_core.export.model_directory import load_model, save_model
from genai_core.hardware import choose_device
from genai_core.inference.reward import open_reward_model
from genai_core.training.curves import save_curves
from genai_core.training.loop import train
from genai_core.training.objectives.grpo import Grpo, evaluate_policy


def run(config: RlhfConfig, *, instruct: Path, reward: Path, cleaned: Path, tokens: Path, questions: Mixture,
        mixture: Mixture, fine_tuning: InstructConfig, out_dir: Path, context: Context) -> Result:
    """Train a copy of the model directory `instruct` against the reward model `reward`, on `questions` and the rows
    that `instruct` was fine-tuned on; write it to `out_dir`.

    Everything is measured on questions of the validation split. Raises InputError when a split has none.
    """
    device = choose_device(context.device)
    policy, reference = load_model(instruct, device), load_model(instruct, device)
    reference.requires_grad_(False)
    reward_model = open_reward_model(reward, device)
    tokenizer = load_tokenizer(instruct)
    prompts = _prompts(config, questions.lessons, cleaned, "train")
    held_out = _prompts(config, questions.lessons, cleaned, "validation")[:config.evaluation_prompts]
    replay = training_rows(fine_tuning, mixture, tokenizer, cleaned, tokens, context.reporter)
    objective = Grpo(policy, reference, reward_model, tokenizer, prompts, held_out, replay, config, device)
    torch.manual_seed(config.seed + 1)
    before = evaluate_policy(reference, reference, reward_model, tokenizer, held_out, config)
    trained = train(policy, objective, config, context)
    torch.manual_seed(config.seed + 1)
    after = evaluate_policy(policy, reference, reward_model, tokenizer, held_out, config)
    save_model(policy, instruct, out_dir)
    save_curves(trained.curves, out_dir)
    gain = after["held_out_reward"] - before["held_out_reward"]
    deviations = gain / max(before["held_out_reward_deviation"], 1e-9)
    context.reporter.note(f"held-out reward {before['held_out_reward']:.3f} to {after['held_out_reward']:.3f}: "
                           f"{deviations:+.2f} standard deviations, KL {after['held_out_kl']:.2f} nats")
    return Result(trained.metrics | after | {f"instruct_{name}": value for name, value in before.items()}
                  | {"reward_gain_deviations": deviations}, trained.measurements)


def _prompts(config: RlhfConfig, lessons: dict[str, Lesson], cleaned: Path, split: str) -> list[Example]:
    found = prompts_of(lessons, config.tasks, cleaned, split, config.seed)
    if not found:
        raise InputError(f"rlhf.tasks: {', '.join(config.tasks)} have no question in the {split} split to be prompts")
    return [example for _, example in found]
