"""`genai down` ends what `genai up` started, and never a stranger that has its number now."""

import json
import subprocess

import pytest

from flows.cli.commands.services import down
from flows.services.environment import running_services, services_file
from genai_core.errors import InputError
from tasks.execution.processes import process_identity
from tasks.store import locks
from tasks.store.workspace import Workspace


@pytest.fixture
def stranger():
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.setenv("GENAI_HOME", str(tmp_path))
    (tmp_path / ".genai").mkdir()
    return Workspace(tmp_path)


def state_of(process, **different):
    return json.dumps({"supervisor": {**process_identity(process.pid), **different}, "services": {}})


def test_a_dead_supervisor_of_another_pod_is_not_running_and_its_number_not_signalled(workspace, stranger, capsys):
    services_file(workspace).write_text(state_of(stranger, host="pod-that-is-gone"))
    assert running_services(workspace) is None      # `up` starts
    down()
    assert stranger.poll() is None and "nothing is running" in capsys.readouterr().out


def test_a_living_supervisor_of_another_pod_is_left_to_that_pod(workspace, stranger):
    state = state_of(stranger, host="pod-1", pid_namespace=1)
    with locks.held(services_file(workspace), state), pytest.raises(InputError, match="only there can it be stopped"):
        down()
    assert stranger.poll() is None
