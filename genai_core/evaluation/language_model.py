"""Every figure of one language model on the questions of a run, with the outcome of each question."""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from genai_core.config.release import EvaluateConfig
from genai_core.context import Reporter
from genai_core.evaluation.bits_per_byte import HeldOutLoss, held_out_loss, word_perplexity
from genai_core.evaluation.intervals import Outcomes
from genai_core.evaluation.questions import HeldOutText
from genai_core.evaluation.tasks import AskedTask, Sample, Subject, TaskResult, ask
from genai_core.hardware import choose_precision
from genai_core.inference.text import OpenedTextModel, open_text_model


@dataclass
class Evaluated:
    """How a model did."""

    figures: dict[str, float] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    outcomes: dict[str, Outcomes] = field(default_factory=dict)

    def add(self, figure: str, result: TaskResult, samples: int) -> None:
        self.figures[figure] = result.figure
        self.samples += result.samples[:samples]
        self.outcomes[figure] = result.outcomes


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
        result.figures[f"bits_per_byte/{name}"] = loss.bits_per_byte
        result.outcomes[f"bits_per_byte/{name}"] = stretch_outcomes(loss)
        if file.raw_words.any() and name.startswith("test."):
            result.figures[f"word_perplexity/{name}"] = word_perplexity(loss, file)
    result.figures["bits_per_byte"] = mean_over_validation(result.figures)


def stretch_outcomes(loss: HeldOutLoss) -> Outcomes:
    """Bits and bytes of each stretch of the text."""
    return [[round(nats / math.log(2), 3) for nats, _ in loss.stretches], [size for _, size in loss.stretches]]


def mean_over_validation(figures: dict[str, float]) -> float:
    """Mean bits per byte over the validation files."""
    held_out = [value for name, value in figures.items() if name.startswith("bits_per_byte/validation.")]
    return sum(held_out) / len(held_out)


def write_table(table: dict[str, Evaluated], out_dir: Path) -> None:
    """Figures, samples and outcomes by model, each in a file of its own."""
    columns = {name: asdict(evaluated) for name, evaluated in table.items()}
    for file, part in (("evaluation.json", "figures"), ("samples.json", "samples")):
        _write(out_dir / file, {name: column[part] for name, column in columns.items() if column[part]}, indent=1)
    _write(out_dir / "outcomes.json", {name: column["outcomes"] for name, column in columns.items()})


def _write(path: Path, value: Any, indent: int | None = None) -> None:
    path.write_text(json.dumps(value, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")
