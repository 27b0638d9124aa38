"""Arithmetic problems: as many as are wanted, each with an answer that can be verified.

They are those of `chain_sum` in reasoning-gym (Stojanovski et al. 2025, arXiv 2505.24760; Apache-2.0) for the same
settings and seed (tested against what its version 0.1.25 drew), without the words around them, which are a task's. The
package itself pins versions of libraries for other puzzles that this project cannot be installed with, and its
generator is a dozen lines.
"""

import random
from collections.abc import Iterator
from typing import Any

from genai_core.config.data import ArithmeticSource


def draw_problems(source: ArithmeticSource) -> Iterator[tuple[str, dict[str, Any]]]:
    """Sums and differences of random numbers. Each problem is drawn by a generator of its own."""
    for number in range(source.problems):
        generator = random.Random(source.seed + number)
        terms = generator.randint(source.min_terms, source.max_terms)
        digits = generator.randint(source.min_digits, source.max_digits)
        least = 0 if digits == 1 else 10 ** (digits - 1)
        numbers = [generator.randint(least, 10**digits - 1) for _ in range(terms)]
        signs = [generator.choice("+-") for _ in range(terms - 1)]
        expression, result = str(numbers[0]), numbers[0]
        for sign, value in zip(signs, numbers[1:], strict=True):
            expression += f" {sign} {value}"
            result += value if sign == "+" else -value
        yield "problems", {"prompt": f"{expression} =", "answers": [str(result)], "choices": None}
