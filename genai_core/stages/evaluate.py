"""The stage evaluate: the same table of figures for every language model of a run, baselines beside it."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from genai_core.config.release import EvaluateConfig, Gold
from genai_core.config.tasks import Mixture, Task
from genai_core.config.training import RewardConfig, RlhfConfig
from genai_core.context import Context, Reporter, Result
from genai_core.data.instruction.examples import plain_question, prompts_of
from genai_core.data.instruction.judgements import judgements
from genai_core.evaluation.baselines.column import evaluate_baselines
from genai_core.evaluation.gold_reward import GoldReward, base_likelihood, gold_scorer
from genai_core.evaluation.harness.figures import add_harness_figures
from genai_core.evaluation.judge import add_win_rates
from genai_core.evaluation.language_model import Evaluated, evaluate_language_model, write_table
from genai_core.evaluation.preferences import judgement_figures
from genai_core.evaluation.questions import choose_questions, held_out_text
from genai_core.evaluation.samples import Sample, samples_of
from genai_core.evaluation.tasks import Subject, alike, continuations
from genai_core.hardware import choose_device
from genai_core.inference.reward import OpenedRewardModel, open_reward_model
from genai_core.inference.text import open_text_model
from genai_core.training.ranks import Ranks


def run(config: EvaluateConfig, *, base: Path, quantized: Path, tokens: Path, cleaned: Path, tasks: dict[str, Task],
        mixture: Mixture, mixture_seed: int, out_dir: Path, context: Context, instruct: Path | None = None,
        rlhf: Path | None = None, reward: Path | None = None, alignment: RlhfConfig | None = None,
        judging: RewardConfig | None = None) -> Result:
    """Write `evaluation.json` (model to figure to value, and the baselines), `intervals.json`, `samples.json`,
    `outcomes.json` and `answers.parquet`.

    The outcomes of single questions and stretches of text tell how much of a difference between two models is noise;
    the answers are all that were given, with what each counted.
    The base model is asked in plain text, all others in chats. The test split is read here and where `promote` asks
    the release in service the same questions.
    """
    made = {"base": base, "instruct": instruct, "rlhf": rlhf, "int8": quantized / "int8", "int4": quantized / "int4"}
    models = {name: directory for name, directory in made.items() if directory}
    knows_chats = {name: instruct is not None and name != "base" for name in models}
    reporter, device, ranks = context.reporter, choose_device(context.device), Ranks.current()
    text = held_out_text(tokens)
    questions = choose_questions(config, tasks, cleaned)
    names = [*models, "baseline"]

    def column(name: str) -> dict[str, Any]:
        reporter.progress(names.index(name), len(names) + 1, "models")
        if name == "baseline":
            return asdict(evaluate_baselines(config, cleaned, tokens, mixture, mixture_seed, questions, reporter))
        evaluated = evaluate_language_model(config, name, models[name], text, questions, chats=knows_chats[name],
                                            device=device, reporter=reporter)
        if config.lm_eval.tasks:
            opened = open_text_model(models[name], device)
            subject = Subject(opened.model, opened.tokenizer, knows_chats[name])
            add_harness_figures(evaluated, config, subject, context.root)
        reporter.note(f"{name}: " + ", ".join(f"{figure} {value:.4g}" for figure, value in evaluated.figures.items()))
        return asdict(evaluated)

    table = {name: Evaluated(**made) for name, made in ranks.share_out(names, column).items()}
    reporter.progress(len(names), len(names) + 1, "models")
    judge = _Judge(config, models, knows_chats, tasks, alignment, cleaned, device) if reward and alignment else None
    if not ranks.leads:
        return Result({})
    order: dict[str, float] = {}
    if judge and reward and judging:
        reward_model = open_reward_model(reward, device)
        order = _judgement_figures(reward_model, cleaned, judging, config.gold)
        judge.add_to(table, reward_model, judging, reporter)
    if config.judge.model:
        add_win_rates(table, config, models, knows_chats, tasks, cleaned, context.root, device, reporter)
    reporter.progress(len(names) + 1, len(names) + 1, "models")
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
                 tasks: dict[str, Task], alignment: RlhfConfig, cleaned: Path, device: torch.device):
        self.config, self.tasks, self.alignment, self.cleaned, self.device = config, tasks, alignment, cleaned, device
        self.base = models["base"]
        self.prompts = prompts_of(tasks, alignment.tasks, cleaned, "test", config.seed)[:config.reward_prompts]
        self.questions = [plain_question(tasks[name], example) for name, example in self.prompts]

        def answers(name: str) -> dict[str, list[str]]:
            opened = open_text_model(models[name], device)
            subject = Subject(opened.model, opened.tokenizer, knows_chats[name])
            asked = (subject, tasks, self.prompts, alignment.completion_tokens)
            return {"sampled": continuations(*asked, temperature=1.0, seed=config.seed),
                    "likeliest": continuations(*asked, temperature=0.0)}

        self.answers = Ranks.current().share_out(list(models), answers) if self.prompts else {}

    def add_to(self, table: dict[str, Evaluated], reward_model: OpenedRewardModel, judging: RewardConfig,
               reporter: Reporter) -> None:
        """Put `gold_reward`, `gold_reward_greedy` and `mean_reward` into the column of each model."""
        if not self.answers:
            return
        base = open_text_model(self.base, self.device)
        scorer, learned_from = gold_scorer(self.cleaned, self.config.gold, [self.alignment], self.tasks,
                                             judging.sources)
        gold = GoldReward(scorer, base_likelihood(base.model, base.tokenizer))
        reporter.note(f"gold reward: learned from {learned_from}; one unit is a standard deviation of the instruct "
                      "model's own answers")
        for figure, kind in (("gold_reward", "sampled"), ("gold_reward_greedy", "likeliest")):
            standard = gold.standard(self.questions, self.answers["instruct"][kind])
            for name, answers in self.answers.items():
                _add(table[name], figure, gold.score(self.questions, answers[kind], standard).tolist(),
                     self._samples(name, kind))
        for name, answers in self.answers.items():
            evaluated = table[name]
            subjects = [example.answered(answer)
                        for (_, example), answer in zip(self.prompts, answers["sampled"], strict=True)]
            _add(evaluated, "mean_reward", reward_model.score(subjects).tolist(), self._samples(name, "sampled"))
            for kind in answers:
                evaluated.samples += self._samples(name, kind)[:self.config.samples]

    def _samples(self, name: str, kind: str) -> list[Sample]:
        return samples_of([f"{task}, {kind}" for task, _ in self.prompts], [example for _, example in self.prompts],
                          [""] * len(self.prompts), self.answers[name][kind])


def _add(evaluated: Evaluated, figure: str, values: list[float], samples: list[Sample]) -> None:
    evaluated.add_outcomes(figure, sum(values) / len(values), alike(values), samples)
