"""Classifying a review by its sentiment, with any of the classifiers."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from genai_core.errors import InputError
from genai_core.families.classification.reviews import encode_reviews
from genai_core.families.labels import LABELS
from genai_core.inference.sampling import Sampling
from genai_core.models.kinds import open_model
from genai_core.models.opened import Opened, kind_of


class ReviewClassifier(Opened):
    """A model that gives logits (B, 2) for token ids and their attention mask, both (B, T)."""

    produces = "text"

    @torch.no_grad()
    def complete(self, prompt: str, max_new_tokens: int, sampling: Sampling, seed: int | None = None) -> Iterator[str]:
        """The sentiment of a review and its probability, in one piece."""
        length = self.model.shape.text_tokens      # type: ignore[union-attr]
        ids, attention_mask = encode_reviews(self.directory, [prompt], length)      # type: ignore[arg-type]
        tokens = int(attention_mask.sum())
        logits = self.model(ids[:, :tokens].to(self.device), attention_mask[:, :tokens].to(self.device))
        probabilities = torch.softmax(logits, dim=1)[0]
        yield f"{LABELS[int(probabilities.argmax())]} ({probabilities.max().item():.0%})"


def load_classifier(directory: Path, device: torch.device) -> nn.Module:
    """The classifier of a directory, of whatever family. Raises InputError for any other directory."""
    opened = open_model(directory, device)
    if not isinstance(opened, ReviewClassifier):
        raise InputError(f"{directory}: a model of kind {kind_of(directory)} is no classifier of reviews")
    return opened.model
