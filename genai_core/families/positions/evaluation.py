"""The evaluation of trainings that differ in one thing: their loss curves in one chart, and held-out figures."""

from pathlib import Path

from genai_core.context import Context, Result
from genai_core.families.characters import HeldOutCharacters
from genai_core.families.positions.config import ComparisonEvaluationConfig
from genai_core.families.report import Pictures, write_evaluation
from genai_core.hardware import choose_device
from genai_core.inference.text import open_text_model
from genai_core.pictures import figure_and_axes, save_picture
from genai_core.training.curves import read_curves

SMOOTHING = 0.95
"""Decay of the moving average by which the curves are smoothed."""


def run(config: ComparisonEvaluationConfig, *, tokens: Path, models: dict[str, Path], out_dir: Path,
        context: Context) -> Result:
    """Write bits per character of each model, in windows as long as in training and longer ones, and the chart."""
    reporter = context.reporter
    device = choose_device(context.device)
    held_out = HeldOutCharacters(tokens, config.held_out_tokens)
    pictures, columns = Pictures(out_dir), dict[str, dict[str, float]]()

    for name, directory in models.items():
        model = open_text_model(directory, device).model
        columns[name] = {"bits_per_character": held_out.bits(model, device)}
        if config.stretch > 1:
            longer = int(model.context_length * config.stretch)
            columns[name]["bits_per_character_longer"] = held_out.bits(model, device, longer)
        reporter.note(f"{name}: " + ", ".join(f"{figure} {value:.3f}" for figure, value in columns[name].items()))
    _draw(models, pictures)
    return write_evaluation(columns, pictures, out_dir)


def _draw(models: dict[str, Path], pictures: Pictures) -> None:
    figure, axes = figure_and_axes(7, 3.6)
    for name, directory in models.items():
        points = read_curves(directory).get("loss", [])
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
