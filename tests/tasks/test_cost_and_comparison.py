"""Costs add up, and the noise of a comparison is what resampling says it is."""

import numpy as np
import pytest

from genai_core.config.runtime import Runtime
from genai_core.evaluation.intervals import difference_interval
from tasks.store.cost import Cost, measured_cost, recorded_cost


def test_energy_is_power_times_time_or_ten_watts_a_busy_core():
    assert measured_cost(Runtime(), 60, 90, 1e12).energy_watt_hours == pytest.approx(90 * 10 / 3600)
    cost = measured_cost(Runtime(power_watts=300, price_per_hour=2, currency="USD"), 1800, 0, 1e12)
    assert (cost.energy_watt_hours, cost.money, cost.currency) == (150, 1, "USD")


def test_costs_add_up_and_survive_a_record():
    total = sum((Cost(1, 2, 3, 4, "EUR"), Cost(10, 20, 30, 40, "EUR")), Cost())
    assert total == Cost(11, 22, 33, 44, "EUR")
    assert recorded_cost({"cost": {"seconds": 1.0, "flops": 2.0, "energy_watt_hours": 3.0, "money": 4.0,
                                   "currency": "EUR"}}) == Cost(1, 2, 3, 4, "EUR")
    assert recorded_cost({}) == Cost()


def outcomes(values):
    return [list(map(float, values)), [1.0] * len(values)]


def test_pairing_takes_the_difficulty_of_the_questions_out_of_the_noise():
    generator = np.random.default_rng(1)
    difficulty = generator.normal(size=400)
    first = outcomes(difficulty)
    second = outcomes(difficulty + 0.1 + 0.05 * generator.normal(size=400))
    low, high = difference_interval(first, second, paired=True, centre=0.1)
    assert 0.09 < low < 0.1 < high < 0.11
    low, high = difference_interval(first, second, paired=False, centre=0.1)
    assert low < 0 < high


def test_the_interval_has_the_width_of_the_normal_one():
    generator = np.random.default_rng(2)
    right = generator.random(1000) < 0.7
    low, high = difference_interval(outcomes([0.0] * 1000), outcomes(right), paired=True, centre=0.7)
    assert high - low == pytest.approx(2 * 1.96 * (0.7 * 0.3 / 1000) ** 0.5, rel=0.1)
