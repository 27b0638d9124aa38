"""Loading a classifier of reviews."""

from pathlib import Path

import torch
from torch import nn

from genai_core.errors import InputError
from genai_core.families.bert.model import Bert, BertClassifier, BertShape
from genai_core.families.classification.reviews import encode_reviews
from genai_core.families.directory import load_into, model_type_of, read_shape
from genai_core.families.many_to_one.model import ManyToOne, ManyToOneShape

LABELS = ("negative", "positive")
CLASSIFIERS = ("many_to_one", "bert_classifier")
"""Model types that tell the sentiment of a review."""


def load_classifier(directory: Path, device: torch.device) -> nn.Module:
    """A model that gives logits (B, 2) for ids and what of them is real. Raises InputError for any other directory."""
    kind = model_type_of(directory)
    model: nn.Module
    if kind == "many_to_one":
        model = ManyToOne(read_shape(directory, ManyToOneShape))
    elif kind == "bert_classifier":
        model = BertClassifier(Bert(read_shape(directory, BertShape)), len(LABELS))
    else:
        raise InputError(f"{directory}: a model of type {kind or 'language model'} is no classifier of reviews")
    return load_into(model, directory, device)


@torch.no_grad()
def tell_sentiment(directory: Path, text: str, device: torch.device) -> str:
    """The sentiment of a review and how sure the model is."""
    model = load_classifier(directory, device)
    ids, real = encode_reviews(directory, [text], model.shape.text_tokens)      # type: ignore[union-attr, arg-type]
    length = int(real.sum())
    probabilities = torch.softmax(model(ids[:, :length].to(device), real[:, :length].to(device)), 1)[0]
    return f"{LABELS[int(probabilities.argmax())]} ({probabilities.max().item():.0%})"
