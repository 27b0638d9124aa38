"""Locks prove who lives: in another pid namespace, under another host name, and after a number has become another's."""

import fcntl
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from genai_core.errors import InputError
from tasks.execution.processes import Process, process_identity
from tasks.store import locks
from tasks.store.artifacts import Store
from tasks.store.workspace import Workspace
from tests.end_to_end.helpers import wait_for

ELSEWHERE = ["unshare", "--pid", "--uts", "--mount-proc", "--fork", "--kill-child", "sh", "-c",
             'hostname another-pod && exec "$@"', "sh"]


def started(code, *arguments, elsewhere=False):
    """A process that runs `code` until its standard input closes; it has said that it is ready."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    process = subprocess.Popen([*(ELSEWHERE if elsewhere else []), *command], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True)
    line = process.stdout.readline().strip()
    assert line.startswith("ready"), line
    return process, line.removeprefix("ready").strip()


def killed(process):
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


@pytest.fixture(scope="module")
def namespaces():
    if subprocess.run([*ELSEWHERE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody make a pid namespace")


HOLDER = """
    import sys
    from pathlib import Path
    from tasks.store import locks
    with locks.held(Path(sys.argv[1]), "alive"):
        print("ready", flush=True)
        sys.stdin.read()
"""


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "in another pod"])
def test_a_holder_lives_until_it_is_killed(tmp_path, request, elsewhere):
    if elsewhere:
        request.getfixturevalue("namespaces")
    path = tmp_path / "file"
    process, _ = started(HOLDER, path, elsewhere=elsewhere)
    assert locks.is_held(path)
    with locks.taken_over(path) as text:
        assert text is None
    killed(process)
    wait_for(lambda: not locks.is_held(path), 10)      # those of a namespace die a moment after its parent
    with locks.taken_over(path) as text, locks.taken_over(path) as second:
        assert text == "alive" and second is None      # two that start at once do not both close its books


SCRATCH = """
    import sys
    from pathlib import Path
    from tasks.store.artifacts import Store
    from tasks.store.workspace import Workspace
    store = Store(Workspace(Path(sys.argv[1])))
    with store.fetching(store.directory("clean", "dataset", "a" * 16)) as folder:
        folder.mkdir()
        print("ready", folder.parent, flush=True)
        sys.stdin.read()
"""


def test_scratch_of_another_pod_is_taken_away_once_its_process_is_dead_and_not_before(tmp_path, namespaces):
    process, folder = started(SCRATCH, tmp_path, elsewhere=True)
    store = Store(Workspace(tmp_path))
    store.remove_leftovers()
    assert Path(folder).is_dir()
    killed(process)

    def taken_away():
        store.remove_leftovers()
        return not list(store.workspace.scratch.iterdir())

    wait_for(taken_away, 10)


def test_a_number_of_another_namespace_is_no_process_of_ours(namespaces):
    process, identity = started("""
        import os, sys
        from tasks.execution.processes import process_identity
        print("ready", process_identity(os.getpid()), flush=True)
        sys.stdin.read()
    """, elsewhere=True)
    with pytest.raises(InputError, match="another container or on another host \\(called another-pod\\)"):
        Process(eval(identity))
    killed(process)


def test_a_number_that_is_another_process_by_now_is_refused():
    with pytest.raises(ProcessLookupError):
        Process({**process_identity(os.getpid()), "started": 1})


def test_a_process_is_signalled_and_its_end_seen():
    process = subprocess.Popen(["sleep", "60"])
    found = Process(process_identity(process.pid))
    assert not found.wait(0)
    found.send(signal.SIGTERM)
    assert found.wait(10)
    found.close()
    process.wait()


def test_who_waits_is_told_for_whom_and_since_when_and_can_be_interrupted(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(locks, "QUIET_SECONDS", 0.1)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)      # a shell's background jobs ignore it
    store = Store(Workspace(tmp_path))
    token = locks.holder.set("genai run --preset smoke (flow run 12345678)")
    with store.lock("clean", "key"), pytest.raises(KeyboardInterrupt):
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        began = time.monotonic()
        with store.lock("clean", "key"):
            pytest.fail("two hold one lock")
    locks.holder.reset(token)
    signal.signal(signal.SIGINT, handler)
    assert time.monotonic() - began < 5
    assert "waiting for clean key: genai run --preset smoke (flow run 12345678) on " in caplog.text
    assert f"on {os.uname().nodename} has it since 20" in caplog.text


def test_what_a_process_left_that_died_in_between_goes_and_nothing_of_a_living_one(tmp_path):
    dead, living = tmp_path / "a.lock.1.part", tmp_path / "b.lock.2.part"
    dead.write_text("")
    with living.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        locks.remove_unfinished(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [living.name]
    locks.remove_unfinished(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_taken_away_before_it_is_locked_is_made_again(tmp_path, monkeypatch):
    lock, calls = fcntl.flock, []

    def late(stream, kind):
        lock(stream, kind)
        if not calls:
            calls.append(kind)
            Path(stream.name).unlink()

    monkeypatch.setattr(locks.fcntl, "flock", late)
    with locks.held(tmp_path / "a.lock", "mine") as file:
        assert file.path.read_text() == "mine"
    assert not list(tmp_path.iterdir()) and calls
