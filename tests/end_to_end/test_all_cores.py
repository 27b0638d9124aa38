"""A run that takes every core, as a user's does: the other tests give each run one thread."""

import os

import pytest

from tests.end_to_end.conftest import TASKS, Home
from tests.end_to_end.helpers import api_of

pytestmark = [pytest.mark.slow, pytest.mark.heavy]


def test_two_runs_on_all_cores_make_the_same_bytes(prefect, tmp_path):
    more = {"PREFECT_API_URL": api_of(prefect), "OMP_NUM_THREADS": str(os.cpu_count()),
            "OMP_WAIT_POLICY": "passive"}      # another worker is busy beside it: threads that spin would halve both
    first, second = Home(tmp_path / "first", more), Home(tmp_path / "second", more)
    for home in (first, second):
        home.root.mkdir()
        assert home.run() == dict.fromkeys(TASKS, "Completed")
    assert first.digests() == second.digests()
