"""Metrics of generated images, by the features of a classifier that was trained on real ones.

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
from genai_core.models.opened import Opened

COVERED_SHARE = 0.1
"""A class counts as covered when it has at least this share of the images that it would have if all had as many."""


class ImageMetrics:
    """Metrics of generated images, by the classifier of a directory and the real images to compare them with."""

    def __init__(self, directory: Path, real: Tensor, device: torch.device):
        self.classifier = load_classifier(directory, device)
        self.device = device
        self.real_features = self._features(real)

    @torch.no_grad()
    def measure(self, images: Tensor, labels: Tensor) -> dict[str, float]:
        """Metrics of images (N, 1, H, W) that were generated for labels (N,): Fréchet distance to the real ones, number
        of classes covered, mean probability of the predicted class, and the share whose prediction is the label."""
        logits = torch.cat([self.classifier(part.to(self.device)).cpu() for part in images.split(500)])
        predictions = logits.argmax(1)
        counts = torch.bincount(predictions, minlength=CLASSES)
        return {"frechet_distance": self.distance(images),
                "classes_covered": float((counts >= COVERED_SHARE * len(images) / CLASSES).sum()),
                "confidence": torch.softmax(logits, 1).amax(1).mean().item(),
                "label_agreement": (predictions == labels).float().mean().item()}

    def distance(self, images: Tensor) -> float:
        """Fréchet distance between `images` (N, 1, H, W) and the real ones."""
        return frechet_distance(self.real_features, self._features(images))

    @torch.no_grad()
    def classes(self, images: Tensor) -> Tensor:
        """Predicted class (N,) of each image."""
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
    """Fréchet distance d² between two sets of features (N, F)."""
    mean = first.mean(0) - second.mean(0)
    covariances = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    # the eigenvalues of Σ₁ Σ₂ are those of a symmetric matrix, so they are real and not negative
    eigenvalues = np.linalg.eigvals(covariances[0] @ covariances[1]).real.clip(min=0)
    return float(mean @ mean + np.trace(covariances[0] + covariances[1]) - 2 * np.sqrt(eigenvalues).sum())


def balanced_labels(count: int) -> Tensor:
    """Labels (`count`,) with each digit equally often: 0, 1, …, 9, 0, 1, …"""
    return torch.arange(count) % CLASSES


def evenly(images: Tensor, count: int) -> Tensor:
    """At most `count` of the images, at even distances: the source is sorted by label."""
    return images if len(images) <= count else images[torch.arange(count) * len(images) // count]
