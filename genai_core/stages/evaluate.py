"""The stage evaluate: the same table of figures for every language model of a run, baselines beside it."""

from pathlib import Path

import torch

from genai_core.config.release import EvaluateConfig
from genai_core.config.training import InstructConfig, RlhfConfig
from genai_core.context import Context, Reporter, Result
from genai_core.evaluation import tasks
from genai_core.evaluation.baseline_column import evaluate_baselines
from genai_core.evaluation.gold_reward import GoldReward, base_likelihood, gold_labels
from genai_core.evaluation.language_model import Evaluated, evaluate_language_model, mean_outcomes, write_table
from genai_core.evaluation.preferences import rated_texts, rating_figures
from genai_core.evaluation.questions import choose_questions, held_out_text
from genai_core.hardware import choose_device
from genai_core.inference.reward import OpenedRewardModel, open_reward_model
from genai_core.inference.text import open_text_model


def run(config: EvaluateConfig, *, base: Path, instruct: Path, rlhf: Path, quantized: Path, reward: Path, tokens: Path,
        cleaned: Path, mixture: InstructConfig, alignment: RlhfConfig, rating_sources: tuple[str, ...], out_dir: Path,
        context: Context) -> Result:
    """Write `evaluation.json` (model to figure to value, and the baselines), `samples.json` and `outcomes.json`.

    The outcomes of single questions and stretches of text tell how much of a difference between two models is noise.
    The base model is asked in plain text, all others in chats. The test split is read here and where `promote` asks
    the release in service the same questions.
    """
    models = {"base": base, "instruct": instruct, "rlhf": rlhf, "int8": quantized / "int8", "int4": quantized / "int4"}
    reporter, device = context.reporter, choose_device(context.device)
    text = held_out_text(tokens)
    questions = choose_questions(config, cleaned, alignment.prompt_words)
    table: dict[str, Evaluated] = {}
    for done, (name, directory) in enumerate(models.items()):
        reporter.progress(done, len(models) + 2, "models")
        table[name] = evaluate_language_model(config, name, directory, text, questions, chats=name != "base",
                                              device=device, reporter=reporter)
        reporter.note(f"{name}: " + ", ".join(f"{figure} {value:.4g}" for figure, value in table[name].figures.items()))
    reporter.progress(len(models), len(models) + 2, "models")
    reward_model = open_reward_model(reward, device)
    rated = rated_texts(cleaned, "test", rating_sources[:1])
    order = rating_figures(reward_model.score([row["text"] for row in rated]).double().cpu().numpy(), rated,
                           rated_texts(cleaned, "train", rating_sources))
    _judge_continuations(config, models, table, questions.openings, reward_model, cleaned, alignment, device, reporter)
    reporter.progress(len(models) + 1, len(models) + 2, "models")
    table["baseline"] = evaluate_baselines(config, cleaned, tokens, mixture, questions, alignment.prompt_words,
                                           reporter)
    reporter.progress(len(models) + 2, len(models) + 2, "models")
    write_table(table, out_dir)
    return Result({f"{model}/{figure}": value for model, evaluated in table.items()
                   for figure, value in evaluated.figures.items()}
                  | {f"reward/{figure}": value for figure, value in order.items()})


def _judge_continuations(config: EvaluateConfig, models: dict[str, Path], table: dict[str, Evaluated],
                         openings: list[str], reward_model: OpenedRewardModel, cleaned: Path,
                         alignment: RlhfConfig, device: torch.device, reporter: Reporter) -> None:
    """Continuations of every model by the reward model that RLHF raised, and by the gold reward that nothing did.

    The gold reward is of sampled words, which RLHF trains on, and of the likeliest ones, which a chat gives: a policy
    that looks better by chance may repeat itself wherever nothing is left to chance.
    """
    sampled, greedy = {}, {}
    for name, directory in models.items():
        opened = open_text_model(directory, device)
        subject = tasks.Subject(opened.model, opened.tokenizer, chats=name != "base")
        sampled[name] = tasks.continuations(subject, openings, alignment.completion_tokens, 1.0, config.seed)
        greedy[name] = tasks.continuations(subject, openings, alignment.completion_tokens, 0.0)
    base = open_text_model(models["base"], device)
    texts, labels = gold_labels(cleaned, alignment)
    gold = GoldReward(texts, labels, base_likelihood(base.model, base.tokenizer, device))
    reporter.note(f"gold reward: learned from {len(texts):,} labelled reviews; one unit is a standard deviation of the "
                  "instruct model's own answers")
    for figure, answers in (("gold_reward", sampled), ("gold_reward_greedy", greedy)):
        standard = gold.standard(openings, answers["instruct"])
        for name, evaluated in table.items():
            _add(evaluated, figure, gold.score(openings, answers[name], standard).tolist())
    for name, evaluated in table.items():
        reviews = [f"{opening} {answer}" for opening, answer in zip(openings, sampled[name], strict=True)]
        _add(evaluated, "mean_reward", reward_model.score(reviews).tolist())
        for task, answered in (("continuation", sampled[name]), ("greedy continuation", greedy[name])):
            evaluated.samples += [{"task": task, "asked": opening, "expected": "", "answered": answer}
                                  for opening, answer in zip(openings, answered, strict=True)][:config.samples]


def _add(evaluated: Evaluated, figure: str, values: list[float]) -> None:
    evaluated.figures[figure] = sum(values) / len(values)
    evaluated.outcomes[figure] = mean_outcomes(values)
