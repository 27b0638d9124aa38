"""The evaluation of the decoders that write digits' names: exact match beside the most frequent name."""

from pathlib import Path

import torch

from genai_core.context import Context, Result
from genai_core.families.directory import load_into, read_shape
from genai_core.families.images.digits import CLASSES, load_digits
from genai_core.families.images.evaluation import evenly
from genai_core.families.one_to_many.config import NamesEvaluationConfig
from genai_core.families.one_to_many.model import NAMES, OneToMany, OneToManyShape
from genai_core.families.one_to_many.objective import exact_match
from genai_core.families.report import DATA, Pictures, write_evaluation
from genai_core.hardware import choose_device
from genai_core.models.opened import Opened
from genai_core.pictures import figure_and_axes, save_picture


def run(config: NamesEvaluationConfig, *, data: Path, models: dict[str, Path], out_dir: Path,
        context: Context) -> Result:
    """Write the share of held-out digits whose name each model writes right, and that of one name for all."""
    reporter = context.reporter
    device = choose_device(context.device)
    images, labels = load_digits(data, "test")
    pictures, columns = Pictures(out_dir), dict[str, dict[str, float]]()
    shown = evenly(torch.arange(len(images)), config.samples)
    samples, written, loaded = {}, dict[str, list[str]](), dict[str, OneToMany]()
    for name, directory in models.items():
        model = loaded[name] = load_one_to_many(directory, device)
        columns[name] = {"exact_match": exact_match(model, images, labels, device),
                         "parameters": sum(parameter.numel() for parameter in model.parameters())}
        reporter.note(f"{name}: {columns[name]['exact_match']:.1%} of the names right")
        written[name] = model.write(images[shown].to(device))
        samples[name] = [{"task": "name", "asked": f"digit {number}", "expected": NAMES[labels[number]],
                          "answered": word}
                         for number, word in zip(shown.tolist(), written[name], strict=True)][:5]
    counts = torch.bincount(load_digits(data, "train")[1], minlength=CLASSES)
    columns["baseline"] = {"exact_match": (labels == counts.argmax()).float().mean().item()}
    _draw(images[shown], written, pictures)
    _draw_confusion(next(reversed(loaded.values())).write(images.to(device)), labels, next(reversed(loaded)), pictures)
    return write_evaluation(columns, pictures, out_dir, samples)


def load_one_to_many(directory: Path, device: torch.device) -> OneToMany:
    """The model of a directory. Raises InputError, naming the file, when it is damaged or of another kind."""
    model = OneToMany(read_shape(directory, OneToManyShape))
    load_into(model, directory, device)
    return model


def open_one_to_many(directory: Path, device: torch.device) -> Opened:
    """The decoder of a directory, which reads images and makes nothing of a text."""
    return Opened(directory, load_one_to_many(directory, device), device)


def _draw(images: torch.Tensor, written: dict[str, list[str]], pictures: Pictures) -> None:
    columns = 10
    rows = -(-len(images) // columns)
    figure, axes = figure_and_axes(9, 1.35 * rows, rows=rows, columns=columns)
    for number, place in enumerate(axes.flat):
        place.axis("off")
        if number < len(images):
            place.imshow(1 - images[number, 0], cmap="gray", vmin=0, vmax=1)
            place.set_title("\n".join(dict.fromkeys(words[number] for words in written.values())), fontsize=8)
    save_picture(figure, pictures.add(f"{DATA}names", "held-out digits and the names that the models wrote, each once"))


def _draw_confusion(words: list[str], labels: torch.Tensor, model: str, pictures: Pictures) -> None:
    """Draw which names the digits are given; what is no name at all comes last."""
    counts = torch.zeros(CLASSES, CLASSES + 1)
    for word, label in zip(words, labels.tolist(), strict=True):
        counts[label, NAMES.index(word) if word in NAMES else CLASSES] += 1
    figure, axes = figure_and_axes(5.5, 4.2)
    axes.imshow((counts / counts.sum(1, keepdim=True)).numpy(), cmap="Blues", vmin=0, vmax=0.1)
    axes.set_xticks(range(CLASSES + 1), [*NAMES, "no name"], rotation=60, fontsize=8)
    axes.set_yticks(range(CLASSES), NAMES, fontsize=8)
    for row in range(CLASSES):
        for column in range(CLASSES + 1):
            if counts[row, column]:
                axes.text(column, row, f"{int(counts[row, column])}", ha="center", va="center", fontsize=7)
    save_picture(figure, pictures.add("confusion", f"{model}: held-out digits (rows) and the names that were written"))
