"""A full disk, on a small file system of its own: said in words, nothing lost, and a re-run completes."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Home
from tests.end_to_end.helpers import address_of, api_of, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.heavy]


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(folder)], capture_output=True,
                             check=False)
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Take all the room there is."""
    filler = folder / "filler"
    with filler.open("ab") as out:
        try:
            while True:
                os.write(out.fileno(), bytes(2**16))
        except OSError:
            return filler


def test_a_disk_that_fills_up_in_mid_run(small_disk, finished, mlflow, prefect):
    home = Home(small_disk, {"PREFECT_API_URL": api_of(prefect), "MLFLOW_TRACKING_URI": address_of(mlflow)})
    arguments = ("run", "--preset", "smoke", "--until", "pretrain", "--set", "runtime.checkpoint_seconds=0.1")

    def run_and_fill_when(condition):
        process = home.start(*arguments)
        wait_for(condition)
        filler = fill(small_disk)
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 1 and "Traceback" not in output, output
        filler.unlink()
        return output

    # while an artifact is written: the dataset before it stays
    output = run_and_fill_when(lambda: home.artifacts("collect"))
    assert "clean: the disk of the workspace" in output and "start the same run again" in output
    assert set(home.digests()) == {"collect"} and home.digests()["collect"] == finished.digests()["collect"]
    # while a checkpoint is written: the one before it stays
    output = run_and_fill_when(lambda: home.checkpoints("pretrain"))
    assert "pretrain: the disk of the workspace" in output
    # hardly any room: refused before anything is spent
    fill(small_disk)
    assert "run: the disk of the workspace" in home.genai(*arguments, fails=True).stderr
    (small_disk / "filler").unlink()
    done = home.genai(*arguments)
    assert "continuing from the checkpoint at step" in done.stdout
    assert home.digests() == {stage: digest for stage, digest in finished.digests().items()
                              if stage in ("collect", "clean", "tokenize", "pretrain")}
