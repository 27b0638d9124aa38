"""The evaluation of the decoders that write digits' names: exact match beside the most frequent name."""

from pathlib import Path

import torch

from genai_core.config.classification import NamesEvaluationConfig
from genai_core.data.digits import CLASSES, load_digits
from genai_core.evaluation.family_report import Pictures, write_evaluation
from genai_core.evaluation.images import evenly
from genai_core.export.family_directory import load_into, read_shape
from genai_core.hardware import choose_device
from genai_core.models.one_to_many import NAMES, OneToMany, OneToManyShape
from genai_core.pictures import figure_and_axes, save_picture
from genai_core.reporter import Reporter
from genai_core.result import Result
from genai_core.training.one_to_many import exact_match


def run(config: NamesEvaluationConfig, *, data: Path, models: dict[str, Path], out_dir: Path, reporter: Reporter,
        device: str) -> Result:
    """Write the share of held-out digits whose name each model writes right, and that of one name for all."""
    where = choose_device(device)
    images, labels = load_digits(data, "test")
    pictures, columns = Pictures(out_dir), dict[str, dict[str, float]]()
    shown = evenly(torch.arange(len(images)), config.samples)
    samples, written = {}, {}
    for name, directory in models.items():
        model = OneToMany(read_shape(directory, OneToManyShape))
        load_into(model, directory, where)
        columns[name] = {"exact_match": exact_match(model, images, labels, where),
                         "parameters": sum(parameter.numel() for parameter in model.parameters())}
        reporter.note(f"{name}: {columns[name]['exact_match']:.1%} of the names right")
        written[name] = model.write(images[shown].to(where))
        samples[name] = [{"task": "name", "asked": f"digit {number}", "expected": NAMES[labels[number]],
                          "answered": word}
                         for number, word in zip(shown.tolist(), written[name], strict=True)][:5]
    counts = torch.bincount(load_digits(data, "train")[1], minlength=CLASSES)
    columns["baseline"] = {"exact_match": (labels == counts.argmax()).float().mean().item()}
    _draw(images[shown], written, pictures)
    return write_evaluation(columns, pictures, out_dir, samples)


def _draw(images: torch.Tensor, written: dict[str, list[str]], pictures: Pictures) -> None:
    columns = 10
    rows = -(-len(images) // columns)
    figure, axes = figure_and_axes(9, 1.35 * rows, rows=rows, columns=columns)
    for number, place in enumerate(axes.flat):
        place.axis("off")
        if number < len(images):
            place.imshow(1 - images[number, 0], cmap="gray", vmin=0, vmax=1)
            place.set_title("\n".join(dict.fromkeys(words[number] for words in written.values())), fontsize=8)
    save_picture(figure, pictures.add("names", "held-out digits and the names that the models wrote, each once"))
