"""The evaluation of classifiers of reviews: accuracy beside the majority and TF-IDF, and by the number of labels."""

import json
from pathlib import Path

import torch

from genai_core.context import Context, Result
from genai_core.evaluation.baselines.simple import majority_accuracy, tfidf_accuracy
from genai_core.families.classification.config import ClassificationEvaluationConfig
from genai_core.families.classification.generation import load_classifier
from genai_core.families.classification.objective import accuracy, predict
from genai_core.families.classification.reviews import Reviews, load_reviews
from genai_core.families.labels import LABELS
from genai_core.families.report import Pictures, write_evaluation
from genai_core.hardware import choose_device
from genai_core.pictures import figure_and_axes, save_picture
from genai_core.training.curves import read_curves


def run(config: ClassificationEvaluationConfig, *, data: Path, models: dict[str, Path], out_dir: Path,
        context: Context) -> Result:
    """Write the accuracy of each model, of the majority, and of TF-IDF with logistic regression."""
    reporter = context.reporter
    device = choose_device(context.device)
    train, test = load_reviews(data, "train"), load_reviews(data, "test")
    pictures, columns, samples = Pictures(out_dir), dict[str, dict[str, float]](), {}
    for name, directory in models.items():
        predictions = predict(load_classifier(directory, device), test, device)
        columns[name] = {"accuracy": accuracy(predictions, test), **_by_labels(directory)}
        reporter.note(f"{name}: accuracy {columns[name]['accuracy']:.3f}")
        shown = range(0, len(test.texts), max(1, len(test.texts) // max(1, config.samples)))
        samples[name] = [{"task": "sentiment", "asked": test.texts[number][:300],
                          "answered": LABELS[predictions[number]], "expected": LABELS[test.labels[number]]}
                         for number in shown][:config.samples]
    columns["baseline"] = {"accuracy": _tfidf(train, test, len(train.labels)),
                           "majority_accuracy": majority_accuracy(test.labels.tolist())}
    counts = sorted({int(figure.split("_")[1]) for figures in columns.values() for figure in figures
                     if figure.endswith("_labels")})
    if counts:
        columns["baseline"] |= {f"accuracy_{count}_labels": _tfidf(train, test, count) for count in counts}
        _draw_labels(columns, pictures)
    _draw_curves(models, pictures)
    return write_evaluation(columns, pictures, out_dir, samples)


def _by_labels(directory: Path) -> dict[str, float]:
    """Accuracy by the number of labels, of a model that was trained on several numbers of them."""
    path = directory / "accuracies.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _tfidf(train: Reviews, test: Reviews, count: int) -> float:
    order = torch.randperm(len(train.labels), generator=torch.Generator().manual_seed(0))[:count].tolist()
    return tfidf_accuracy([train.texts[number] for number in order], train.labels[order].tolist(), test.texts,
                                    test.labels.tolist())


def _draw_labels(columns: dict[str, dict[str, float]], pictures: Pictures) -> None:
    figure, axes = figure_and_axes(6, 3.2)
    for column, figures in columns.items():
        points = [(int(name.split("_")[1]), value) for name, value in figures.items() if name.endswith("_labels")]
        if points:
            axes.plot(*zip(*sorted(points), strict=True), marker="o", markersize=4, label=column)
    axes.set_xscale("log")
    axes.set_xlabel("labelled reviews")
    axes.set_ylabel("accuracy on held-out reviews")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    save_picture(figure, pictures.add("labels", "accuracy by the number of labelled reviews"))


def _draw_curves(models: dict[str, Path], pictures: Pictures) -> None:
    """Draw accuracy on validation reviews during training: where it falls again, the model overfits."""
    figure, axes = figure_and_axes(6, 3)
    for name, directory in models.items():
        curves = read_curves(directory)
        chosen = [curve for curve in curves if curve.startswith("validation_accuracy")]
        if chosen:
            axes.plot(*zip(*curves[chosen[-1]], strict=True), marker="o", markersize=3, label=name)
    axes.set_xlabel("step")
    axes.set_ylabel("validation accuracy")
    if axes.get_lines():
        axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    save_picture(figure, pictures.add("learning", "accuracy on held-out reviews while training"))
