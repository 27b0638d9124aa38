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


@dataclass(frozen=True)
class OneToManyShape:
    cell: str
    embedding_size: int
    hidden_size: int


class OneToMany(nn.Module):
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
        """The image's features as hidden state; an LSTM's cell begins with them too."""
        features = self.look(images)
        return (features,) * self.decoder.states

    def forward(self, images: Tensor, letters: Tensor) -> Tensor:
        """Logits (B, T, V) of the letter after each of `letters` (B, T)."""
        hidden, _ = self.decoder(self.embedding(letters), self.first_state(images))
        return self.head(hidden)

    @torch.no_grad()
    def write(self, images: Tensor) -> list[str]:
        """The likeliest letter, again and again."""
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
    """Letters that the decoder is given and asked for, both (B, LONGEST), of digits (B,); names end in `$`."""
    rows = [[ALPHABET.index(letter) for letter in "^" + NAMES[label].ljust(LONGEST, "$")] for label in labels.tolist()]
    letters = torch.tensor(rows)
    return letters[:, :-1], letters[:, 1:]
