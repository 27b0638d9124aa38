"""Every figure of one language model on the questions of a run, with the outcome of each question."""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from genai_core.config.release import EvaluateConfig
from genai_core.context import Reporter
from genai_core.evaluation.bits_per_byte import held_out_loss, word_perplexity
from genai_core.evaluation.intervals import Outcomes, figure_interval, interval_of, mean_interval, stretch_outcomes
from genai_core.evaluation.questions import HeldOutText
from genai_core.evaluation.samples import Sample
from genai_core.evaluation.tasks import Answered, AskedTask, Subject, TaskResult, ask
from genai_core.hardware import choose_precision
from genai_core.inference.text import OpenedTextModel, open_text_model


@dataclass
class Evaluated:
    """How a model did."""

    figures: dict[str, float] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    """The answers that a report prints."""
    outcomes: dict[str, Outcomes] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Ends of the 95 % interval of each figure that has outcomes from which noise can be told."""
    answers: list[Answered] = field(default_factory=list)
    """Every question with its answer and its own value of the figure."""

    def add(self, figure: str, result: TaskResult, samples: int) -> None:
        self.samples += [] if result.silent else [row for row in result.samples[:samples] if row not in self.samples]
        self.add_outcomes(figure, result.figure, result.outcomes, result.samples)

    def add_outcomes(self, figure: str, value: float, outcomes: Outcomes, samples: list[Sample]) -> None:
        self.figures[figure] = value
        self.outcomes[figure] = outcomes
        if interval := interval_of(figure, outcomes, value):
            self.intervals[figure] = interval
        self.answers += [{**sample, "figure": figure, "value": each / weight}
                         for sample, each, weight in zip(samples, *outcomes, strict=True)]


def evaluate_language_model(config: EvaluateConfig, name: str, directory: Path, text: HeldOutText,
                            questions: list[AskedTask], chats: bool, device: torch.device, reporter: Reporter
                            ) -> Evaluated:
    """Bits per byte and the figures of each task, as `task_metric`; `chats` says whether the model knows the chat
    format."""
    opened = open_text_model(directory, device)
    result = Evaluated()
    add_bits_per_byte(result, config, opened, text)
    for asked in questions:
        subject = Subject(opened.model, opened.tokenizer, chats)
        for metric, answered in ask(subject, asked).items():
            result.add(f"{asked.name}_{metric}", answered, config.samples)
        if subject.cut_prompts:
            reporter.note(f"{name}: of {len(asked.examples):,} prompts of {asked.name} {subject.cut_prompts:,} lost "
                          f"their beginning to fit the context of {opened.model.context_length:,} tokens")
    return result


def add_bits_per_byte(result: Evaluated, config: EvaluateConfig, opened: OpenedTextModel, text: HeldOutText) -> None:
    """Bits per byte of each held-out file, their mean over validation, and word perplexity where words are known."""
    for name, file in text.files.items():
        loss = held_out_loss(opened.model, file, text.byte_lengths, opened.model.context_length, overlap=True,
                             max_tokens=config.bits_per_byte_tokens, device=opened.device,
                             precision=choose_precision(opened.device))
        figure = f"bits_per_byte/{name}"
        result.figures[figure] = loss.bits_per_byte
        result.outcomes[figure] = stretch_outcomes(loss.stretches)
        interval = figure_interval(result.outcomes[figure], loss.bits_per_byte)
        if interval:
            result.intervals[figure] = interval
        if file.raw_words.any() and name.startswith("test."):
            perplexity = result.figures[f"word_perplexity/{name}"] = word_perplexity(loss, file)
            # ln perplexity and bits per byte are the same nats over other units: one is a multiple of the other
            scale = math.log(perplexity) / loss.bits_per_byte
            if interval:
                low, high = (math.exp(scale * end) for end in interval)
                result.intervals[f"word_perplexity/{name}"] = (low, high)
    add_mean_bits_per_byte(result)


def add_mean_bits_per_byte(result: Evaluated) -> None:
    """Mean bits per byte over the validation files, with its interval."""
    held_out = [name for name in result.figures if name.startswith("bits_per_byte/validation.")]
    mean = result.figures["bits_per_byte"] = sum(result.figures[name] for name in held_out) / len(held_out)
    result.intervals["bits_per_byte"] = mean_interval([result.outcomes[name] for name in held_out], mean)


ANSWERS = pa.schema([("model", pa.string()), ("task", pa.string()), ("figure", pa.string()),
                     ("question", pa.string()), ("asked", pa.string()), ("expected", pa.string()),
                     ("answered", pa.string()), ("value", pa.float64())])


def write_table(table: dict[str, Evaluated], out_dir: Path) -> None:
    """Figures, intervals, samples and outcomes by model, each in a file of its own, and every answer in a table."""
    columns = {name: asdict(evaluated) for name, evaluated in table.items()}
    for file, part in (("evaluation.json", "figures"), ("intervals.json", "intervals"), ("samples.json", "samples")):
        _write(out_dir / file, {name: column[part] for name, column in columns.items() if column[part]}, indent=1)
    _write(out_dir / "outcomes.json", {name: column["outcomes"] for name, column in columns.items()})
    answers = [{"model": name, **answer} for name, column in columns.items() for answer in column["answers"]]
    pq.write_table(pa.Table.from_pylist(answers, schema=ANSWERS), out_dir / "answers.parquet", compression="zstd")


def _write(path: Path, value: Any, indent: int | None = None) -> None:
    path.write_text(json.dumps(value, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")
