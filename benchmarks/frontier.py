"""What each method of alignment buys, and at what distance: gold reward against KL, four methods with an equal budget.

    python -m benchmarks.frontier                        the newest reward model of this workspace, and what it was made
                                                         from; writes docs/frontier.md
    python -m benchmarks.frontier --preset smoke --seeds 0 1 --prompts 32 --output /tmp/frontier.md

Each method starts from the instruct model of the reward model and raises the latter, and samples and scores the same
number of completions with each seed. On the way the policies answer questions of the test split: the KL to the instruct
model is estimated from what they sample, and the gold reward, which no method sees, is that of `evaluate`, in standard
deviations of the instruct model's answers; it learns from nothing that any method has as a prompt with any seed.
Best-of-N sampling, which changes no model, is the line to beat. A training that diverges is told and left out.
"""

import argparse
import json
import math
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml

from benchmarks.tables import headline
from benchmarks.training import inputs_of, newest
from genai_core.config.pipeline import PipelineConfig, load_pipeline
from genai_core.config.training import RlhfConfig
from genai_core.context import Context, LogReporter
from genai_core.data.instruction.examples import Example, plain_question, prompts_of
from genai_core.data.tokens.tokenizer import load_tokenizer
from genai_core.errors import TrainingDiverged
from genai_core.evaluation.gold_reward import GoldReward, HeldOutGold, base_likelihood, gold_scorer
from genai_core.export.model_directory import load_model
from genai_core.hardware import choose_device
from genai_core.inference.reward import open_reward_model
from genai_core.pictures import figure_and_axes, save_picture
from genai_core.rewards.reward import open_rewards
from genai_core.stages.rlhf import objective_of
from genai_core.training.alignment.rollouts import penalised, sample_rollout
from genai_core.training.curves import finite
from genai_core.training.loop import train
from genai_core.training.objectives.objective import evenly_spaced

ROOT = Path(__file__).parents[1]
METHODS = ("grpo", "ppo", "dpo", "best_of_n")
NAMES = {"grpo": "GRPO", "ppo": "PPO", "dpo": "DPO on its own pairs", "best_of_n": "fine-tuning on the best of N"}
SAMPLES = (1, 2, 4, 8, 16, 32)
POINTS = 5
"""Times that a policy is looked at on its way."""
OFF = {"kl_budget": None, "entropy_floor": None, "length_drift": None, "distinct_floor": None, "gold_drop": None}
T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365}
"""Student's t of the mean of so many runs."""


@dataclass(frozen=True)
class Point:
    """A policy on the frontier."""

    kl: float
    gold: float
    reward: float


class Workspace:
    """What the methods start from, and what they are asked."""

    def __init__(self, home: Path, config: PipelineConfig, methods: list[str], seeds: list[int], prompts: int):
        self.config, self.device = config, choose_device("auto")
        self.reward = newest(home / "models" / "reward", "genai run")
        self.instruct = inputs_of(self.reward, home)["instruct"]
        made_from = inputs_of(self.instruct, home)
        self.cleaned, self.tokens = made_from["clean"], made_from["tokenize"]
        base = made_from["pretrain" if "pretrain" in made_from else "adopt"]
        tasks, alignment = config.active_tasks, config.rlhf
        asked = prompts_of(tasks, alignment.tasks, self.cleaned, "test", config.evaluate.seed)[:prompts]
        self.prompts: list[Example] = [example for _, example in asked]
        self.tokenizer = load_tokenizer(self.instruct)
        compared = [self.changed(method, seed) for method in methods for seed in seeds]
        scorer, learned_from = gold_scorer(self.cleaned, config.evaluate.gold, compared, tasks, config.reward.sources)
        print(f"gold reward from {learned_from}", flush=True)
        likelihood = base_likelihood(load_model(base, self.device), self.tokenizer)
        self.gold = HeldOutGold(GoldReward(scorer, likelihood),
                                [plain_question(tasks[name], example) for name, example in asked])
        self.best_of(1, alignment.seed)      # sets the scale

    def changed(self, method: str, seed: int) -> RlhfConfig:
        """The config of a method that samples as many completions as the others, with no monitor that ends it."""
        config = self.config.rlhf
        steps = config.steps * (config.ppo.epochs if method == "ppo" else 1)
        return RlhfConfig.model_validate({**config.model_dump(), "method": method, "seed": seed, "steps": steps,
                                          "monitors": {**config.monitors.model_dump(), **OFF}})

    def trained(self, method: str, seed: int) -> tuple[list[Point], float] | None:
        """Points of a method's way, and its seconds without those of looking at them; None where it diverged."""
        config = self.changed(method, seed)
        objective = objective_of(
            config, instruct=self.instruct, reward=self.reward, cleaned=self.cleaned, tokens=self.tokens,
            questions=self.config.questions, mixture=self.config.mixture, fine_tuning=self.config.instruct,
            gold=self.config.evaluate.gold, judged=self.config.reward.sources, device=self.device,
            reporter=LogReporter())
        objective.held_out, objective.gold = self.prompts, self.gold
        objective.evaluation_steps = evenly_spaced(config.steps, min(POINTS, self.config.rlhf.steps))
        with objective.rewards, objective.sampler, tempfile.TemporaryDirectory() as folder:
            try:
                trained = train(objective.trained, objective, config,
                                Context(Path(folder), LogReporter(), checkpoint_seconds=1e9))
            except TrainingDiverged as error:
                print(f"{method}, seed {seed}: {error}", flush=True)
                return None
        if trained.stopped:      # a figure was no number
            print(f"{method}, seed {seed}: {trained.stopped.verdict.reason}", flush=True)
            return None
        curves = (trained.curves[f"held_out_{name}"] for name in ("kl", "gold", "reward"))
        found = [[value for _, value in finite(curve)] for curve in curves]
        seconds = trained.measurements["training_seconds"] - trained.measurements["evaluation_seconds"]
        return [Point(*values) for values in zip(*found, strict=True)], seconds

    def best_of(self, count: int, seed: int) -> Point:
        """The best of `count` answers of the instruct model by the reward model, at KL ln N − (N − 1)/N at most
        (Stiennon et al. 2020)."""
        model, alignment = load_model(self.instruct, self.device), self.config.rlhf
        torch.manual_seed(seed + 1)
        repeated = [prompt for prompt in self.prompts for _ in range(count)]
        rollout = sample_rollout(model, self.tokenizer, repeated, alignment)
        with open_rewards(alignment.rewards, open_reward_model(self.reward, self.device)) as opened:
            rewards = penalised(opened.score(repeated, rollout.answers).total, rollout, alignment)
        best = rewards.view(-1, count).argmax(1) + torch.arange(0, len(repeated), count)
        gold = self.gold([rollout.answers[number] for number in best.tolist()])
        return Point(math.log(count) - (count - 1) / count, gold, rewards[best].mean().item())


def mean_and_interval(values: list[float]) -> tuple[float, float]:
    """The mean over seeds, and how far its 95 % interval reaches to either side (Student's t)."""
    if len(values) < 2:
        return values[0], math.nan
    return float(np.mean(values)), T_95[len(values)] * float(np.std(values, ddof=1)) / len(values) ** 0.5


def shown(values: list[float]) -> str:
    mean, reach = mean_and_interval(values)
    return f"{mean:.2f}" if math.isnan(reach) else f"{mean:.2f} [{mean - reach:.2f}, {mean + reach:.2f}]"


def line_at(kl: float, line: dict[int, list[Point]]) -> float:
    """Gold reward of best-of-N sampling at a KL; beyond its last point, that of the last."""
    places = [points[0].kl for points in line.values()]
    return float(np.interp(kl, places, [np.mean([point.gold for point in points]) for points in line.values()]))


def page(above: str, workspace: Workspace, ways: dict[str, list[list[Point]]], seconds: dict[str, list[float]],
         line: dict[int, list[Point]], seeds: int, picture: str) -> str:
    config = workspace.config.rlhf
    ended = {method: runs for method, runs in ways.items() if runs}
    points = len(next(iter(ended.values()))[0])
    rows = ["| method | KL, nats | gold reward | above best-of-N at this KL | reward | seconds |",
            "|---|---:|---:|---:|---:|---:|"]
    for method, runs in ended.items():
        ends = [way[-1] for way in runs]
        above_line = [end.gold - line_at(end.kl, line) for end in ends]
        rows.append(f"| {NAMES[method]} | {shown([end.kl for end in ends])} | {shown([end.gold for end in ends])} | "
                    f"{shown(above_line)} | {shown([end.reward for end in ends])} | {np.mean(seconds[method]):.0f} |")
    way = ["| method | " + " | ".join(f"{number}/{points}" for number in range(1, points + 1)) + " |"]
    way.append("|---|" + "---:|" * points)
    for method, runs in ended.items():
        cells = [f"{np.mean([point.gold for point in points]):.2f} at {np.mean([point.kl for point in points]):.1f}"
                 for points in zip(*runs, strict=True)]
        way.append(f"| {NAMES[method]} | {' | '.join(cells)} |")
    best = ["| N | KL, nats | gold reward | reward |", "|---:|---:|---:|---:|"]
    best += [f"| {count} | {points[0].kl:.2f} | {shown([point.gold for point in points])} | "
             f"{shown([point.reward for point in points])} |" for count, points in line.items()]
    budget = config.steps * config.batch_size
    lost = ", ".join(f"{seeds - len(runs)} of {seeds} seeds of {NAMES[method]}" for method, runs in ways.items()
                     if len(runs) < seeds)
    return "\n".join([
        "# The frontier of alignment", "",
        f"Written by one command: {above}.", "",
        "What a method buys is a higher **gold reward**, which nobody optimised ([rlhf](rlhf.md)); what it costs is "
        "distance, the KL from the instruct model in nats a completion. Each method starts from the same instruct "
        f"model, raises the same reward model and samples {budget:,} completions, with {seeds} seeds; PPO makes "
        f"{config.ppo.epochs} steps on each batch of them, the others one. All answer the same "
        f"{len(workspace.prompts):,} prompts of the test split. The unit of gold is a standard deviation of the "
        "instruct model's answers; in brackets the 95 % interval of the mean over seeds (Student's t).", "",
        f"![Gold reward against KL]({picture})", "",
        "## At the end of training", "", *rows, "", *([f"Diverged and left out: {lost}.", ""] if lost else []),
        "## On the way", "", "Gold reward at KL, means over seeds, by share of the training.", "", *way, "",
        "## Best-of-N sampling, the line to beat", "",
        "N answers of the instruct model, the best by the reward model. Its KL is ln N − (N − 1)/N at most; it costs N "
        "answers each time one is given.", "", *best, ""])


def draw(ways: dict[str, list[list[Point]]], line: dict[int, list[Point]], path: Path) -> None:
    figure, axes = figure_and_axes(7, 4.5)
    axes.plot([points[0].kl for points in line.values()],
              [np.mean([point.gold for point in points]) for points in line.values()], "k--o", markersize=3,
              label="best-of-N sampling")
    for number, (method, runs) in enumerate(ways.items()):
        means = [(np.mean([point.kl for point in points]), np.mean([point.gold for point in points]))
                 for points in zip(*runs, strict=True)]
        axes.plot([0, *(kl for kl, _ in means)], [0, *(gold for _, gold in means)], "-o", color=f"C{number}",
                  markersize=3, label=NAMES[method])
        axes.scatter([way[-1].kl for way in runs], [way[-1].gold for way in runs], color=f"C{number}", marker="x", s=25)
    axes.set_xlabel("KL from the instruct model, nats a completion")
    axes.set_ylabel("gold reward, standard deviations")
    axes.legend(fontsize=8)
    save_picture(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="laptop", help="that of the workspace's run")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="e.g. rlhf.steps=40")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--prompts", type=int, default=256, help="of the test split")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "frontier.md")
    options = parser.parse_args()
    if len(options.seeds) > max(T_95):
        parser.error(f"--seeds: {len(options.seeds)}; an interval is told of at most {max(T_95)}")
    above = headline()
    changes = {field: yaml.safe_load(value) for field, _, value in (each.partition("=") for each in options.set)}
    workspace = Workspace(Path(os.environ.get("GENAI_HOME", ROOT)), load_pipeline(options.preset, changes),
                          options.methods, options.seeds, options.prompts)
    line = {count: [workspace.best_of(count, seed) for seed in options.seeds] for count in SAMPLES}
    ways: dict[str, list[list[Point]]] = {method: [] for method in options.methods}
    seconds: dict[str, list[float]] = {method: [] for method in options.methods}
    for method in options.methods:
        for seed in options.seeds:
            if found := workspace.trained(method, seed):
                ways[method].append(found[0])
                seconds[method].append(found[1])
                print(json.dumps({"method": method, "seed": seed, "seconds": round(found[1], 1),
                                  "way": [vars(point) for point in found[0]]}), flush=True)
    there = {method: runs for method, runs in ways.items() if runs}
    if not there:
        sys.exit("every training diverged")
    picture = options.output.with_suffix(".png")
    draw(there, line, picture)
    options.output.write_text(page(above, workspace, ways, seconds, line, len(options.seeds), picture.name),
                              encoding="utf-8")
    print(f"wrote {options.output} and {picture}")


if __name__ == "__main__":
    main()
