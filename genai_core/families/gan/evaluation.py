"""The evaluation of the adversarial networks: distance and coverage beside the autoencoder's, and what collapse looks
like."""

from pathlib import Path

import torch

from genai_core.context import Context, Result
from genai_core.families.images.config import ImageEvaluationConfig
from genai_core.families.images.digits import CLASSES, load_digits
from genai_core.families.images.evaluation import ImageMetrics, balanced_labels, evenly
from genai_core.families.images.generation import open_image_model
from genai_core.families.report import Pictures, write_evaluation
from genai_core.hardware import choose_device
from genai_core.pictures import figure_and_axes, save_grid, save_picture
from genai_core.training.curves import read_curves


def run(config: ImageEvaluationConfig, *, data: Path, classifier: Path, models: dict[str, Path], out_dir: Path,
        context: Context) -> Result:
    """Write the figures of each generator and of the autoencoder `vae`, and the pictures."""
    reporter = context.reporter
    device = choose_device(context.device)
    metrics = ImageMetrics(classifier, load_digits(data, "test")[0], device)
    pictures, columns = Pictures(out_dir), dict[str, dict[str, float]]()
    labels = balanced_labels(config.images)
    counts = {}
    for name, directory in models.items():
        model = open_image_model(directory, device)
        images = model.generate(labels.to(device), torch.Generator().manual_seed(config.seed)).cpu()
        columns[name] = {figure: value for figure, value in metrics.measure(images, labels).items()
                         if figure != "label_agreement"}      # these models know no labels
        counts[name] = torch.bincount(metrics.classes(images), minlength=CLASSES)
        save_grid(images[:40], pictures.add(f"samples-{name}", f"{name}: samples"), 10)
        reporter.note(f"{name}: distance {columns[name]['frechet_distance']:.2f}, "
                      f"{columns[name]['classes_covered']:.0f} of {CLASSES} digits")
    columns["baseline"] = columns.pop("vae")
    columns["real"] = {"frechet_distance": metrics.distance(evenly(load_digits(data, "train")[0], config.images))}
    _draw_counts(counts, pictures)
    _draw_monitor({name: directory for name, directory in models.items() if name != "vae"}, pictures)
    return write_evaluation(columns, pictures, out_dir)


def _draw_counts(counts: dict[str, torch.Tensor], pictures: Pictures) -> None:
    figure, axes = figure_and_axes(7, 2.8)
    width = 0.8 / len(counts)
    for number, (name, count) in enumerate(counts.items()):
        places = [digit + number * width for digit in range(CLASSES)]
        axes.bar(places, (count / count.sum()).tolist(), width, label=name)
    axes.axhline(1 / CLASSES, color="black", linewidth=0.8, linestyle=":")
    axes.set_xticks([digit + 0.4 - width / 2 for digit in range(CLASSES)], [str(digit) for digit in range(CLASSES)])
    axes.set_ylabel("share of the samples")
    axes.set_xlabel("digit that the classifier sees")
    axes.legend(fontsize=8)
    save_picture(figure, pictures.add("digits", "which digits the models make; dotted: all equally often"))


def _draw_monitor(models: dict[str, Path], pictures: Pictures) -> None:
    """Draw what was measured of the samples during training."""
    figure, (covered, distance) = figure_and_axes(9, 3, columns=2)
    for name, directory in models.items():
        curves = read_curves(directory)
        for axes, curve in ((covered, "classes_covered"), (distance, "frechet_distance")):
            points = curves.get(curve, [])
            steps, values = [step for step, _ in points], [value for _, value in points]
            axes.plot(steps, values, marker="o", markersize=3, label=name)
    covered.set_ylabel("digits covered, of 10")
    covered.set_ylim(0, CLASSES + 0.5)
    distance.set_ylabel("Fréchet distance")
    distance.set_yscale("log")
    for axes in (covered, distance):
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    save_picture(figure, pictures.add("monitor", "the monitor of mode collapse, while the networks played"))
