"""A search over fields: it comes near the best, begins again the same, and says what is wrong with what it is given."""

import math

import pytest
from pydantic import ValidationError

from flows.cli.combinations import combinations, fields
from flows.search import Range, Search, search_rows
from genai_core.errors import InputError

FIELDS = {"pretrain.learning_rate": {"low": 1e-4, "high": 1e-1}, "pretrain.batch_size": {"low": 4, "high": 8},
          "pretrain.optimizer": ["adamw", "muon"]}


def run(combination):
    """Best at a rate of 3e-3 with Muon."""
    loss = abs(math.log10(combination["pretrain.learning_rate"] / 3e-3)) + (combination["pretrain.optimizer"] != "muon")
    return {**combination, "pretrain/loss": loss}


def searched(trials=25, given=run, **changes):
    search = Search(**{"fields": FIELDS, "trials": trials, "minimize": "pretrain/loss", **changes})
    return search_rows(search, given, "failed", lambda text: None)


def test_it_comes_near_the_best_and_begins_again_the_same():
    rows = searched()
    best = min(rows, key=lambda row: row["pretrain/loss"])
    assert best["pretrain.optimizer"] == "muon" and 1e-3 < best["pretrain.learning_rate"] < 1e-2
    assert {type(row["pretrain.batch_size"]) for row in rows} == {int}
    assert searched(10) == rows[:10]      # so that a search that was stopped finds its runs in the cache
    assert searched(10, seed=1) != rows[:10]


def test_what_is_to_be_large_is_large():
    rows = searched(minimize="", maximize="pretrain/loss")
    assert max(rows, key=lambda row: row["pretrain/loss"])["pretrain.optimizer"] == "adamw"


def test_a_failed_trial_is_a_row_and_the_search_goes_on():
    def sometimes(combination):
        return {**combination, "failed": "no"} if combination["pretrain.optimizer"] == "adamw" else run(combination)

    rows = searched(12, sometimes)
    assert len(rows) == 12 and any("failed" in row for row in rows) and any("failed" not in row for row in rows)


def test_a_figure_that_a_run_does_not_have_is_told_with_those_it_has():
    (row,) = searched(minimize="pretrain/los")      # and no more runs for it
    assert row["failed"] == ("pretrain/los: the run has no such figure, or no number in it; there are pretrain/loss")


@pytest.mark.parametrize("changes", [{"minimize": ""}, {"maximize": "pretrain/loss"}, {"trials": 0}, {"fields": {}}])
def test_a_search_has_one_figure_some_trials_and_fields(changes):
    with pytest.raises(ValidationError):
        searched(**changes)


def test_fields_of_the_command():
    assert fields(["a.b=1e-4..1e-2", "c.d=1,2", "e.f=4..8"]) == {
        "a.b": {"low": 1e-4, "high": 1e-2}, "c.d": [1, 2], "e.f": {"low": 4, "high": 8}}
    assert Range(low=4, high=8).whole and str(Range(low=1e-4, high=0.5)) == "0.0001..0.5"
    with pytest.raises(InputError, match="the range has no room"):
        fields(["a.b=2..1"])
    with pytest.raises(InputError, match="a range has no end of values"):
        combinations(["a.b=1..2"])
