"""A small convolutional classifier of digits (after LeCun et al. 1998), by which generated images are measured.

Its last hidden layer gives the features of the Fréchet distance, in place of the Inception network of Heusel et al.
2017, which knows photographs and not digits.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from genai_core.families.images.digits import CLASSES


@dataclass(frozen=True)
class ClassifierShape:
    channels: int
    feature_size: int


class DigitClassifier(nn.Module):
    """Two convolutions, a hidden layer whose activations are the features, and a linear head."""

    def __init__(self, shape: ClassifierShape):
        super().__init__()
        self.shape = shape
        channels, inner = shape.channels, 2 * shape.channels
        self.body = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(channels, inner, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(inner * 49, shape.feature_size), nn.ReLU())
        self.head = nn.Linear(shape.feature_size, CLASSES)

    def features(self, images: Tensor) -> Tensor:
        """The last hidden layer (B, F) for images (B, 1, 28, 28) from 0 to 1."""
        return self.body(images)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, 10)."""
        return self.head(self.features(images))
