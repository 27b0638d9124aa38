"""Several flows at once in one workspace, on the embedded SQLite files, each with a Prefect server of its own."""

import pytest

from tests.end_to_end.conftest import TASKS, Home, states

pytestmark = [pytest.mark.slow, pytest.mark.heavy]


def test_four_flows_at_once_do_what_they_share_once(tmp_path):
    """Two have the same key in every stage; the other two share the data and train with other seeds."""
    home = Home(tmp_path, {"OMP_NUM_THREADS": "1"})
    settings = ([], [], ["--set", "pretrain.seed=1"], ["--set", "pretrain.seed=2"])
    processes = [home.start("run", "--preset", "smoke", *setting) for setting in settings]
    outputs = [process.communicate(timeout=500)[0] for process in processes]
    failed = [output for process, output in zip(processes, outputs, strict=True) if process.returncode]
    assert not failed, "\n".join(failed)
    ran = [states(output) for output in outputs]
    for stage in ("collect", "clean", "tokenize"):
        assert sorted(each[stage] for each in ran) == ["Cached"] * 3 + ["Completed"], stage
    for stage in TASKS[4:-1]:
        assert sorted(each[stage] for each in ran[:2]) == ["Cached", "Completed"], stage
        assert [each[stage] for each in ran[2:]] == ["Completed"] * 2, stage
    counts = {stage: len(home.artifacts(stage)) for stage in ("tokenize", "pretrain", "quantize", "evaluate")}
    assert counts == {"tokenize": 1, "pretrain": 3, "quantize": 3, "evaluate": 3}
    assert len(home.models()) == 15
    assert home.run()["evaluate"] == "Cached"      # promote is held against whichever of the others came last
    assert home.run() == dict.fromkeys(TASKS, "Cached")
