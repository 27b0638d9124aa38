"""One to many: an image becomes the first state of a recurrent decoder, which writes a word letter by letter
(after Vinyals et al. 2015).

Shapes: B images, T letters, H hidden size, V letters of the alphabet.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from genai_core.families.recurrent.model import LAYERS, State

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ALPHABET = "^$" + "".join(sorted(set("".join(NAMES))))
"""The marks of beginning and end, then the letters."""
LONGEST = max(map(len, NAMES)) + 1
"""Length of the longest name with its end mark."""


@dataclass(frozen=True)
class OneToManyShape:
    cell: str
    embedding_size: int
    hidden_size: int


class OneToMany(nn.Module):
    """A convolutional encoder, and a recurrent decoder that begins in the state that the encoder gives."""

    def __init__(self, shape: OneToManyShape):
        super().__init__()
        self.shape = shape
        self.look = nn.Sequential(nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU(),
                                  nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(),
                                  nn.Linear(32 * 49, shape.hidden_size), nn.Tanh())
        self.embedding = nn.Embedding(len(ALPHABET), shape.embedding_size)
        self.decoder = LAYERS[shape.cell](shape.embedding_size, shape.hidden_size)
        self.head = nn.Linear(shape.hidden_size, len(ALPHABET))

    def first_state(self, images: Tensor) -> State:
        """State of the decoder before the first letter: the features of the image, for an LSTM's cell too."""
        features = self.look(images)
        return (features,) * self.decoder.states

    def forward(self, images: Tensor, letters: Tensor) -> Tensor:
        """Logits (B, T, V) of the letter after each of `letters` (B, T)."""
        hidden, _ = self.decoder(self.embedding(letters), self.first_state(images))
        return self.head(hidden)

    @torch.no_grad()
    def write(self, images: Tensor) -> list[str]:
        """Names of images (B, 1, 28, 28) by greedy decoding."""
        state = self.first_state(images)
        letter = torch.zeros(len(images), 1, dtype=torch.int64, device=images.device)
        written = []
        for _ in range(LONGEST):
            hidden, state = self.decoder(self.embedding(letter), state)
            letter = self.head(hidden).argmax(-1)
            written.append(letter[:, 0])
        rows = torch.stack(written, dim=1).tolist()
        return ["".join(ALPHABET[number] for number in row).split("$")[0] for row in rows]


def spelled(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs and targets of the decoder, both (B, LONGEST), for digits (B,): the letters of their names from `^` on,
    and from the first letter on, filled up with `$`."""
    rows = [[ALPHABET.index(letter) for letter in "^" + NAMES[label].ljust(LONGEST, "$")] for label in labels.tolist()]
    letters = torch.tensor(rows)
    return letters[:, :-1], letters[:, 1:]
