"""Training of recurrent classifiers of reviews."""

from pathlib import Path

import torch

from genai_core.context import Context, Result
from genai_core.data.tokens.tokenizer import load_tokenizer
from genai_core.families.classification.objective import ReviewLabels, steps_of
from genai_core.families.classification.reviews import load_reviews
from genai_core.families.labels import LABELS
from genai_core.families.many_to_one.config import ManyToOneConfig
from genai_core.families.many_to_one.model import ManyToOne, ManyToOneShape
from genai_core.families.training import train_family_model
from genai_core.models.flops import flops_per_token, matrix_weights


def run(config: ManyToOneConfig, *, data: Path, out_dir: Path, context: Context) -> Result:
    """Train on the reviews in `data` and write the model directory to `out_dir`."""
    reviews, validation = load_reviews(data, "train"), load_reviews(data, "validation")
    length = reviews.ids.shape[1]
    shape = ManyToOneShape(config.cell, load_tokenizer(data).get_vocab_size(), config.embedding_size,
                           config.hidden_size, len(LABELS), length, config.dropout)

    def objective(model: ManyToOne, device: torch.device) -> ReviewLabels:
        flops_per_review = length * flops_per_token(matrix_weights(model, "embedding"))
        return ReviewLabels(model, reviews, validation, config, steps_of(config, len(reviews.labels)),
                            flops_per_review, device)

    return train_family_model("many_to_one", ManyToOne, shape, objective, config, context, out_dir,
                              figures=("validation_accuracy",), tokenizer_dir=data)
