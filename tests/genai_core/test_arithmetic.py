"""Arithmetic problems: those of chain_sum in reasoning-gym 0.1.25."""


import pytest
from pydantic import ValidationError

from genai_core.config.data import ArithmeticSource
from genai_core.data.sources.arithmetic import draw_problems

DRAWN = {(2, 2, 1, 2, 0): ["15 - 43 = -28", "4 - 1 = 3", "1 + 5 = 6", "5 - 9 = -4", "23 - 60 = -37", "98 + 93 = 191"],
         (2, 6, 1, 4, 7): ["60 + 93 - 16 + 19 = 156", "484 + 229 + 297 = 1010", "373 + 241 - 290 - 987 + 792 = 129",
                           "6 - 7 - 9 + 0 + 3 - 7 = -14"]}
"""What the package drew: least and most terms, least and most digits, seed."""


@pytest.mark.parametrize("settings", DRAWN)
def test_the_problems_are_those_of_chain_sum(settings):
    names = ("min_terms", "max_terms", "min_digits", "max_digits", "seed")
    source = ArithmeticSource(problems=10, **dict(zip(names, settings, strict=True)))
    drawn = [(row["prompt"], row["answers"]) for _, row in draw_problems(source)]
    expected = [(f"{question} =", [answer]) for question, _, answer in
                (each.rpartition(" = ") for each in DRAWN[settings])]
    assert drawn[:len(expected)] == expected


def test_least_above_most_is_refused():
    with pytest.raises(ValidationError, match="min_digits 3 is above max_digits 2"):
        ArithmeticSource(min_digits=3)
