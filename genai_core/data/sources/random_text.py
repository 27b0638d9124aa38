"""Random text: the smallest demonstration, of which it is known how well a model can do."""

import random
from collections.abc import Iterator
from typing import Any

from genai_core.config.data import RandomTextSource


def draw_text(source: RandomTextSource) -> Iterator[tuple[str, dict[str, Any]]]:
    """Documents of letters, each drawn independently."""
    generator = random.Random(source.seed)
    for _ in range(source.documents):
        yield "documents", {"text": "".join(generator.choices(source.alphabet, k=source.characters))}
