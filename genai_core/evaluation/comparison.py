"""The evaluation of trainings that differ in one thing: their loss curves in one chart, and held-out figures."""

import json
import math
from pathlib import Path

import torch

from genai_core.config.recurrent import ComparisonEvaluationConfig
from genai_core.data.token_files import TokenFile, read_tokens
from genai_core.data.tokenizer import load_tokenizer
from genai_core.evaluation.bits_per_byte import held_out_loss, token_byte_lengths
from genai_core.evaluation.family_report import Pictures, write_evaluation
from genai_core.hardware import choose_device
from genai_core.inference.text import load_language_model
from genai_core.models.language_model import LanguageModel
from genai_core.pictures import figure_and_axes, save_picture
from genai_core.reporter import Reporter
from genai_core.result import Result

SMOOTHING = 0.95
"""Decay of the moving average that the curves are drawn as."""


def run(config: ComparisonEvaluationConfig, *, tokens: Path, models: dict[str, Path], out_dir: Path,
        reporter: Reporter, device: str) -> Result:
    """Write bits per character of each model, in windows as long as in training and longer ones, and the chart."""
    where = choose_device(device)
    tokenizer = load_tokenizer(tokens)
    held_out = read_tokens(tokens, sorted(path.stem for path in tokens.glob("test.*.bin"))[0])
    characters = len(tokenizer.decode(held_out.ids[1:config.held_out_tokens + 1].tolist(), skip_special_tokens=True))
    lengths = token_byte_lengths(tokenizer)
    pictures, columns = Pictures(out_dir), dict[str, dict[str, float]]()

    def bits(model: LanguageModel, file: TokenFile, length: int) -> float:
        loss = held_out_loss(model, file, lengths, length, max_tokens=config.held_out_tokens, device=where,
                             precision=torch.float32)
        return loss.nats / math.log(2) / characters

    for name, directory in models.items():
        model, _ = load_language_model(directory, where)
        columns[name] = {"bits_per_character": bits(model, held_out, model.context_length)}
        if config.stretch > 1:
            longer = int(model.context_length * config.stretch)
            columns[name]["bits_per_character_longer"] = bits(model, held_out, longer)
        reporter.note(f"{name}: " + ", ".join(f"{figure} {value:.3f}" for figure, value in columns[name].items()))
    _draw(models, pictures)
    return write_evaluation(columns, pictures, out_dir)


def _draw(models: dict[str, Path], pictures: Pictures) -> None:
    figure, axes = figure_and_axes(7, 3.6)
    for name, directory in models.items():
        points = json.loads((directory / "curves.json").read_text(encoding="utf-8"))["loss"]
        average, steps, values = 0.0, [], []
        for number, (step, value) in enumerate(points):
            average = SMOOTHING * average + (1 - SMOOTHING) * value
            steps.append(step)
            values.append(average / (1 - SMOOTHING ** (number + 1)))
        axes.plot(steps, values, label=name, linewidth=1.2)
    axes.set_xlabel("step")
    axes.set_ylabel("training loss, nats a character")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    save_picture(figure, pictures.add("loss", "training loss of each, as a moving average"))
