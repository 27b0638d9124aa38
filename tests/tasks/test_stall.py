"""When a loss counts as stalled."""

import math

import pytest

from tasks.tracking.stall import LossWatch


def told(losses: list[float | None], patience: int = 5) -> list[int]:
    watch = LossWatch(patience)
    return [step for step, loss in enumerate(losses, 1) if watch.see(step, loss)]


def test_a_falling_loss_is_never_told():
    assert told([10 - step / 100 for step in range(200)]) == []


def test_noise_around_a_falling_loss_is_no_stall():
    assert told([10 - step / 10 + (-1) ** step for step in range(90)]) == []


@pytest.mark.parametrize("stalled", [5.0, 6.0, math.nan, math.inf, None])
def test_a_loss_that_does_not_fall_or_is_not_finite_is_told_once(stalled):
    assert told([5.0] + [stalled] * 20) == [6]


def test_a_second_stall_after_progress_is_told_again():
    assert told([5.0] * 10 + [1.0] * 300)[0] == 6
    assert len(told([5.0] * 10 + [1.0] * 100 + [9.0] * 100)) == 2
