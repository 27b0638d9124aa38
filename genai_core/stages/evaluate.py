"""The stage evaluate: the same table of figures for every language model of a run, baselines beside it."""

from pathlib import Path

import torch

from genai_core.config.release import EvaluateConfig, Gold
from genai_core.config.tasks import Mixture, Task
from genai_core.config.training import RewardConfig, RlhfConfig
from genai_core.context import Context, Reporter, Result
from genai_core.data.instruction.examples import plain_question, prompts_of
from genai_core.data.instruction.judgements import judgements
from genai_core.evaluation.baseline_column import evaluate_baselines
from genai_core.evaluation.gold_reward import GoldReward, base_likelihood, gold_scorer
from genai_core.evaluation.language_model import Evaluated, evaluate_language_model, write_table
from genai_core.evaluation.preferences import judgement_figures
from genai_core.evaluation.questions import choose_questions, held_out_text
from genai_core.evaluation.tasks import Subject, alike, continuations
from genai_core.hardware import choose_device
from genai_core.inference.reward import OpenedRewardModel, open_reward_model
from genai_core.inference.text import open_text_model


def run(config: EvaluateConfig, *, base: Path, quantized: Path, tokens: Path, cleaned: Path, tasks: dict[str, Task],
        mixture: Mixture, mixture_seed: int, out_dir: Path, context: Context, instruct: Path | None = None,
        rlhf: Path | None = None, reward: Path | None = None, alignment: RlhfConfig | None = None,
        judging: RewardConfig | None = None) -> Result:
    """Write `evaluation.json` (model to figure to value, and the baselines), `samples.json` and `outcomes.json`.

    The outcomes of single questions and stretches of text tell how much of a difference between two models is noise.
    The base model is asked in plain text, all others in chats. The test split is read here and where `promote` asks
    the release in service the same questions.
    """
    made = {"base": base, "instruct": instruct, "rlhf": rlhf, "int8": quantized / "int8", "int4": quantized / "int4"}
    models = {name: directory for name, directory in made.items() if directory}
    knows_chats = {name: instruct is not None and name != "base" for name in models}
    reporter, device = context.reporter, choose_device(context.device)
    text = held_out_text(tokens)
    questions = choose_questions(config, tasks, cleaned)
    table: dict[str, Evaluated] = {}
    for done, (name, directory) in enumerate(models.items()):
        reporter.progress(done, len(models) + 2, "models")
        table[name] = evaluate_language_model(config, name, directory, text, questions, chats=knows_chats[name],
                                              device=device, reporter=reporter)
        reporter.note(f"{name}: " + ", ".join(f"{figure} {value:.4g}" for figure, value in table[name].figures.items()))
    reporter.progress(len(models), len(models) + 2, "models")
    order: dict[str, float] = {}
    if reward and judging and alignment:
        reward_model = open_reward_model(reward, device)
        order = _judgement_figures(reward_model, cleaned, judging, config.gold)
        judge = _Judge(config, models, knows_chats, tasks, alignment, judging, cleaned, device, reporter)
        judge.add_to(table, reward_model)
    reporter.progress(len(models) + 1, len(models) + 2, "models")
    table["baseline"] = evaluate_baselines(config, cleaned, tokens, mixture, mixture_seed, questions, reporter)
    reporter.progress(len(models) + 2, len(models) + 2, "models")
    write_table(table, out_dir)
    return Result({f"{model}/{figure}": value for model, evaluated in table.items()
                   for figure, value in evaluated.figures.items()}
                  | {f"reward/{figure}": value for figure, value in order.items()})


def _judgement_figures(reward_model: OpenedRewardModel, cleaned: Path, judging: RewardConfig, gold: Gold
                       ) -> dict[str, float]:
    """How well the reward model orders the judgements of the test split; TF-IDF learns from the same ones as it did."""
    judged = judgements(cleaned, "test", judging.sources, gold)
    if len(judged.all) < 2:
        return {}
    scores = reward_model.score([each.subject for each in judged.all]).double().cpu().numpy()
    return judgement_figures(scores, judged, judgements(cleaned, "train", judging.sources, gold),
                             judging.min_rating_gap)


class _Judge:
    """Answers of every model by the reward model that RLHF raised, and by the gold reward that nothing did.

    The gold reward is of sampled words, which RLHF trains on, and of the likeliest ones, which a chat gives: a policy
    that looks better by chance may repeat itself wherever nothing is left to chance.
    """

    def __init__(self, config: EvaluateConfig, models: dict[str, Path], knows_chats: dict[str, bool],
                 tasks: dict[str, Task], alignment: RlhfConfig, judging: RewardConfig, cleaned: Path,
                 device: torch.device, reporter: Reporter):
        self.config = config
        self.prompts = prompts_of(tasks, alignment.tasks, cleaned, "test", config.seed)[:config.reward_prompts]
        self.questions = [plain_question(tasks[name], example) for name, example in self.prompts]
        self.sampled: dict[str, list[str]] = {}
        self.greedy: dict[str, list[str]] = {}
        for name, directory in models.items() if self.prompts else ():
            opened = open_text_model(directory, device)
            subject = Subject(opened.model, opened.tokenizer, knows_chats[name])
            answer = (subject, tasks, self.prompts, alignment.completion_tokens)
            self.sampled[name] = continuations(*answer, temperature=1.0, seed=config.seed)
            self.greedy[name] = continuations(*answer, temperature=0.0)
        base = open_text_model(models["base"], device)
        scorer, learned_from = gold_scorer(cleaned, config.gold, alignment, tasks, judging.sources)
        self.gold = GoldReward(scorer, base_likelihood(base.model, base.tokenizer))
        reporter.note(f"gold reward: learned from {learned_from}; one unit is a standard deviation of the instruct "
                      "model's own answers")

    def add_to(self, table: dict[str, Evaluated], reward_model: OpenedRewardModel) -> None:
        """Put `gold_reward`, `gold_reward_greedy` and `mean_reward` into each column that has answers."""
        if not self.prompts:
            return
        for figure, answers in (("gold_reward", self.sampled), ("gold_reward_greedy", self.greedy)):
            standard = self.gold.standard(self.questions, answers["instruct"])
            for name, evaluated in table.items():
                _add(evaluated, figure, self.gold.score(self.questions, answers[name], standard).tolist())
        for name, evaluated in table.items():
            subjects = [example.answered(answer)
                        for (_, example), answer in zip(self.prompts, self.sampled[name], strict=True)]
            _add(evaluated, "mean_reward", reward_model.score(subjects).tolist())
            for kind, answered in (("sampled", self.sampled[name]), ("likeliest", self.greedy[name])):
                evaluated.samples += [{"task": f"{task}, {kind}", "asked": example.asked[-1]["content"], "expected": "",
                                       "answered": answer}
                                      for (task, example), answer in zip(self.prompts, answered, strict=True)
                                      ][:self.config.samples]


def _add(evaluated: Evaluated, figure: str, values: list[float]) -> None:
    evaluated.figures[figure] = sum(values) / len(values)
    evaluated.outcomes[figure] = alike(values)
