"""Whole flows as a user starts them: the `genai` command in a subprocess, with a workspace of its own."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass
class Home:
    """A workspace and the command that runs in it."""

    root: Path

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
        return {**kept, "GENAI_HOME": str(self.root), "COLUMNS": "200"}

    def command(self, *arguments: str) -> list[str]:
        return [str(Path(sys.executable).with_name("genai")), *arguments]

    def genai(self, *arguments: str, fails: bool = False) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(self.command(*arguments), env=self.environment, capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=400, check=False)
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done

    def run(self, *settings: str, force: str | None = None) -> dict[str, str]:
        """Run the smoke preset; the state of each task."""
        arguments = ["run", "--preset", "smoke"]
        for setting in settings:
            arguments += ["--set", setting]
        if force:
            arguments += ["--force", force]
        return states(self.genai(*arguments).stdout)

    def models(self) -> list[dict]:
        return json.loads(self.genai("models", "--json").stdout)

    def artifact(self, stage: str) -> Path:
        (path,) = [path for kind in ("data", "models", "reports") for path in (self.root / kind).glob(f"{stage}/*")]
        return path


def states(output: str) -> dict[str, str]:
    return dict(re.findall(r"^  (\w+): (Completed|Cached|Fetched|Failed|Crashed) in", output, re.MULTILINE))


TASKS = ["collect", "clean", "tokenize", "version_data", "pretrain", "instruct", "reward", "rlhf", "quantize",
         "evaluate", "promote"]


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A workspace in which the smoke preset ran once, for tests that only look or add."""
    home = Home(tmp_path_factory.mktemp("finished"))
    assert home.run() == dict.fromkeys(TASKS, "Completed")
    return home


@pytest.fixture
def copied(finished: Home, tmp_path: Path) -> Home:
    """A copy of the finished workspace that a test may change; MLflow's absolute paths stay with the first."""
    subprocess.run(["cp", "-a", str(finished.root), str(tmp_path / "home")], check=True)
    return Home(tmp_path / "home")
