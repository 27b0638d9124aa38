"""Whether generated digits help where real ones are few: the same classifier trained with and without them."""

from pathlib import Path

import torch

from genai_core.context import Context, Result
from genai_core.families.images.config import ImageEvaluationConfig
from genai_core.families.images.digits import load_digits
from genai_core.families.images.evaluation import balanced_labels, evenly, load_classifier
from genai_core.families.images.generation import open_image_model
from genai_core.families.report import DATA, Pictures, write_evaluation
from genai_core.hardware import choose_device
from genai_core.pictures import save_grid


def run(config: ImageEvaluationConfig, *, data: Path, maker: Path, models: dict[str, Path], out_dir: Path,
        context: Context) -> Result:
    """Write the accuracy of each classifier on held-out digits with its standard error, and that of logistic regression
    on the pixels of the real ones."""
    reporter = context.reporter
    from sklearn.linear_model import LogisticRegression

    device = choose_device(context.device)
    train, labels = load_digits(data, "train")
    test, truth = load_digits(data, "test")
    pictures, columns = Pictures(out_dir), dict[str, dict[str, float]]()
    for name, directory in models.items():
        classifier = load_classifier(directory, device)
        with torch.no_grad():
            columns[name] = _accuracy(classifier(test.to(device)).argmax(1).cpu(), truth)
        reporter.note(f"{name}: accuracy {columns[name]['accuracy']:.3f} ± {columns[name]['standard_error']:.3f}")
    fitted = LogisticRegression(max_iter=1000).fit(train.flatten(1).numpy(), labels.numpy())
    columns["baseline"] = _accuracy(torch.from_numpy(fitted.predict(test.flatten(1).numpy())), truth)
    generator = torch.Generator().manual_seed(config.seed)
    generated = open_image_model(maker, device).generate(balanced_labels(20).to(device), generator).cpu()
    real = evenly(train[labels.argsort()], 20)
    save_grid(generated, pictures.add("made", f"digits that the model made of {len(train)} real ones"), 10)
    both = pictures.add(f"{DATA}digits", f"some of the {len(train)} real digits, and what the model made of them")
    save_grid(torch.cat([real, generated]), both, 20, ["real", "made"])
    return write_evaluation(columns, pictures, out_dir)


def _accuracy(predictions: torch.Tensor, truth: torch.Tensor) -> dict[str, float]:
    share = (predictions == truth).float().mean().item()
    return {"accuracy": share, "standard_error": (share * (1 - share) / len(truth)) ** 0.5}
