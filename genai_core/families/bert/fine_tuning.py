"""Training a classifier on few labels: the encoder fine-tuned, from scratch, or with its features frozen."""

import json
from dataclasses import replace
from pathlib import Path

import torch

from genai_core.context import Context, Result
from genai_core.families.bert.config import FineTuneConfig
from genai_core.families.bert.masked_tokens import flops_per_text
from genai_core.families.bert.model import Bert, BertClassifier, BertShape
from genai_core.families.classification.objective import EVALUATION_BATCH, ReviewLabels, accuracy, predict
from genai_core.families.classification.reviews import Reviews, load_reviews
from genai_core.families.directory import load_into, read_shape, save_family_model
from genai_core.families.labels import LABELS
from genai_core.hardware import choose_device
from genai_core.training.curves import Curves, save_curves
from genai_core.training.loop import train


def run(config: FineTuneConfig, *, data: Path, encoder: Path, out_dir: Path, context: Context) -> Result:
    """Train one classifier for each number of labels; write the last one's model directory and all accuracies."""
    device = choose_device(context.device)
    reviews, validation, test = (load_reviews(data, split) for split in ("train", "validation", "test"))
    curves: Curves = {}
    metrics: dict[str, float] = {"flops": 0.0}
    seconds = 0.0
    for labels in config.labels:
        count = min(labels, len(reviews.labels))
        chosen = _first(reviews, count)
        model = _model(config, encoder, device)
        if config.start == "frozen":
            _fit_head(model, chosen, device)
        else:
            steps = max(config.least_steps, round(count * config.epochs / config.batch_size))
            objective = ReviewLabels(model, chosen, validation, config, steps,
                                     flops_per_text(model.encoder, reviews.ids.shape[1]), device)
            trained = train(model, objective, config,
                            replace(context, checkpoint_dir=context.checkpoint_dir / str(labels)))
            curves |= {f"{name}/{labels}": points for name, points in trained.curves.items()}
            metrics["flops"] += trained.metrics["flops"]
            seconds += trained.measurements["training_seconds"]
        test_accuracy = accuracy(predict(model, test, device), test)
        metrics[f"accuracy_{labels}_labels"] = test_accuracy
        context.reporter.note(f"{config.start}, {count:,} labels: accuracy {test_accuracy:.3f}")
    save_family_model(model, "bert_classifier", model.encoder.shape, out_dir, data)
    save_curves(curves, out_dir)
    accuracies = {name: value for name, value in metrics.items() if name.startswith("accuracy")}
    (out_dir / "accuracies.json").write_text(json.dumps(accuracies) + "\n", encoding="utf-8")
    return Result(metrics, {"training_seconds": seconds})


def _first(reviews: Reviews, count: int) -> Reviews:
    """`count` reviews in a random order that is the same for every way of training, so that a larger number contains
    the smaller ones."""
    order = torch.randperm(len(reviews.labels), generator=torch.Generator().manual_seed(0))[:count]
    return Reviews(reviews.ids[order], reviews.attention_mask[order], reviews.labels[order],
                   [reviews.texts[number] for number in order.tolist()])


def _model(config: FineTuneConfig, encoder: Path, device: torch.device) -> BertClassifier:
    torch.manual_seed(config.seed)
    bert = Bert(read_shape(encoder, BertShape))
    if config.start != "scratch":
        load_into(bert, encoder, device)
    return BertClassifier(bert, len(LABELS)).to(device)


@torch.no_grad()
def _fit_head(model: BertClassifier, reviews: Reviews, device: torch.device) -> None:
    """Fit logistic regression to the features, and make its weights those of the classifier."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    model.eval()
    batches = zip(reviews.ids.split(EVALUATION_BATCH), reviews.attention_mask.split(EVALUATION_BATCH), strict=True)
    parts = [model.features(ids.to(device), attention_mask.to(device)).cpu() for ids, attention_mask in batches]
    features = torch.cat(parts).numpy()
    scaler = StandardScaler().fit(features)
    fitted = LogisticRegression(max_iter=2000).fit(scaler.transform(features), reviews.labels.numpy())
    weight = torch.from_numpy(fitted.coef_[0] / scaler.scale_).float()
    bias = float(fitted.intercept_[0] - (fitted.coef_[0] * scaler.mean_ / scaler.scale_).sum())
    model.classifier.weight.copy_(torch.stack([torch.zeros_like(weight), weight]))
    model.classifier.bias.copy_(torch.tensor([0.0, bias]))
