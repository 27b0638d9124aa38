"""Training of recurrent classifiers of reviews."""

from pathlib import Path

import torch

from genai_core.context import Context, Result
from genai_core.data.tokenizer import load_tokenizer
from genai_core.families.classification.objective import ReviewLabels
from genai_core.families.classification.reviews import load_reviews
from genai_core.families.directory import save_family_model
from genai_core.families.many_to_one.config import ManyToOneConfig
from genai_core.families.many_to_one.model import ManyToOne, ManyToOneShape
from genai_core.hardware import choose_device
from genai_core.training.loop import train
from genai_core.training.outcome import outcome


def run(config: ManyToOneConfig, *, data: Path, out_dir: Path, context: Context) -> Result:
    """Train on the reviews in `data` and write the model directory to `out_dir`."""
    device = choose_device(context.device)
    torch.manual_seed(config.seed)
    reviews, validation = load_reviews(data, "train"), load_reviews(data, "validation")
    shape = ManyToOneShape(config.cell, load_tokenizer(data).get_vocab_size(), config.embedding_size,
                           config.hidden_size, 2, reviews.ids.shape[1], config.dropout)
    model = ManyToOne(shape).to(device)
    weights = sum(parameter.numel() for name, parameter in model.named_parameters()
                  if parameter.dim() == 2 and not name.startswith("embedding"))
    steps = max(1, round(len(reviews.labels) * config.epochs / config.batch_size))
    objective = ReviewLabels(model, reviews, validation, config, steps, 6.0 * weights * reviews.ids.shape[1], device)
    trained = train(model, objective, config, context)
    save_family_model(model, "many_to_one", shape, out_dir, data)
    return outcome(trained, model, out_dir, "validation_accuracy")
