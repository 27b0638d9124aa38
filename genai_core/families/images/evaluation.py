"""How good generated images are, by the eyes of a classifier that was trained on real ones.

Fréchet distance between Gaussians fitted to the classifier's features (Heusel et al. 2017, eq. 6 with another network):

    d² = ‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2 (Σ₁ Σ₂)^½).
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from genai_core.families.directory import load_into, read_shape
from genai_core.families.images.classifier import ClassifierShape, DigitClassifier
from genai_core.families.images.digits import CLASSES
from genai_core.models.kinds import Opened

COVERED_SHARE = 0.1
"""A class counts as covered when it has at least this share of the images that it would have if all were equal."""


class ImageJudge:
    """A trained classifier, and the real images that generated ones are compared with."""

    def __init__(self, directory: Path, real: Tensor, device: torch.device):
        self.classifier = load_classifier(directory, device)
        self.device = device
        self.real = self._features(real)

    @torch.no_grad()
    def judge(self, images: Tensor, labels: Tensor) -> dict[str, float]:
        """Distance to the real images, digits that occur, how sure the classifier is, and the share of the images that
        it takes for the digit that was asked for (labels (B,))."""
        logits = torch.cat([self.classifier(part.to(self.device)).cpu() for part in images.split(500)])
        seen = logits.argmax(1)
        counts = torch.bincount(seen, minlength=CLASSES)
        return {"frechet_distance": self.distance(images),
                "classes_covered": float((counts >= COVERED_SHARE * len(images) / CLASSES).sum()),
                "confidence": torch.softmax(logits, 1).amax(1).mean().item(),
                "label_agreement": (seen == labels).float().mean().item()}

    def distance(self, images: Tensor) -> float:
        """Fréchet distance between `images` (N, 1, H, W) and the real ones."""
        return frechet_distance(self.real, self._features(images))

    @torch.no_grad()
    def classes(self, images: Tensor) -> Tensor:
        return self.classifier(images.to(self.device)).argmax(1).cpu()

    @torch.no_grad()
    def _features(self, images: Tensor) -> np.ndarray:
        parts = [self.classifier.features(part.to(self.device)).cpu() for part in images.split(500)]
        return torch.cat(parts).double().numpy()


def load_classifier(directory: Path, device: torch.device) -> DigitClassifier:
    """The classifier of a directory. Raises InputError, naming the file, when it is damaged or of another kind."""
    model = DigitClassifier(read_shape(directory, ClassifierShape))
    load_into(model, directory, device)
    return model


def open_classifier(directory: Path, device: torch.device) -> Opened:
    return Opened(directory, load_classifier(directory, device), device)


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """d² of two sets of features (N, F)."""
    mean = first.mean(0) - second.mean(0)
    covariances = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    # the eigenvalues of Σ₁ Σ₂ are those of a symmetric matrix, so they are real and not negative
    eigenvalues = np.linalg.eigvals(covariances[0] @ covariances[1]).real.clip(min=0)
    return float(mean @ mean + np.trace(covariances[0] + covariances[1]) - 2 * np.sqrt(eigenvalues).sum())


def asked_labels(count: int) -> Tensor:
    """Each digit as often as the others: 0, 1, …, 9, 0, 1, … (count,)."""
    return torch.arange(count) % CLASSES


def evenly(images: Tensor, count: int) -> Tensor:
    """At most `count` of the images, at even distances: the source has them in the order of their labels."""
    return images if len(images) <= count else images[torch.arange(count) * len(images) // count]
