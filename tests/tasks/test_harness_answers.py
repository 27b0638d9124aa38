"""Which figures of lm-evaluation-harness tell right answers from wrong ones."""

import pytest

from tasks.views.samples import Answered


@pytest.mark.parametrize("figure", ["lm_eval/films/acc", "lm_eval/films/acc_norm", "lm_eval/gsm8k/exact_match",
                                    "lm_eval/gsm8k/exact_match/strict-match"])
def test_answers_are_right_or_wrong_by_what_the_harness_counts(figure):
    assert Answered("task", "asked", "expected", values={figure: 1.0}).right is True
    assert Answered("task", "asked", "expected", values={figure: 0.0}).right is False


@pytest.mark.parametrize("figure", ["lm_eval/pages/bits_per_byte", "lm_eval/told/bleu", "lm_eval/fast/bleu/acc-like"])
def test_other_figures_of_the_harness_tell_neither(figure):
    assert Answered("task", "asked", "expected", values={figure: 1.0}).right is None
