"""Checkpoints on the remote: the newest whole one is found by its key, and no remote holds a training up."""

import shutil
import threading
import time

import pytest

from tasks.store import checkpoints
from tasks.store.checkpoints import Courier, discard, fetch_newer
from tasks.store.workspace import Workspace

WHICH = ("pretrain", "0123456789abcdef")


@pytest.fixture
def hosts(tmp_path, monkeypatch):
    monkeypatch.setenv("GENAI_DVC_REMOTE", str(tmp_path / "remote"))
    monkeypatch.setattr(checkpoints, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(checkpoints, "SHARE", 1.0)
    ann, bob = Workspace(tmp_path / "ann"), Workspace(tmp_path / "bob")
    for host in (ann, bob):
        host.root.mkdir()
    return ann, bob


def save(workspace: Workspace, step: int) -> None:
    """As the training does: whole at once, and the ones before the last two go."""
    folder = workspace.checkpoints.joinpath(*WHICH)
    scratch = folder / f".step-{step:08d}"
    scratch.mkdir(parents=True)
    for name in ("model.safetensors", "state.json"):
        (scratch / name).write_text(f"{name} at {step}")
    scratch.rename(folder / f"step-{step:08d}")
    for old in sorted(folder.glob("step-*"))[:-2]:
        shutil.rmtree(old)


def on_remote(tmp_path):
    """Those whose document is there; the folders of older ones are being removed meanwhile, so none is walked."""
    return sorted(path.stem for path in (tmp_path / "remote/genai/checkpoints").joinpath(*WHICH).glob("step-*.json"))


def arrives(tmp_path, step: int) -> None:
    deadline = time.monotonic() + 20
    while f"step-{step:08d}" not in on_remote(tmp_path):
        assert time.monotonic() < deadline, "the checkpoint does not arrive"
        time.sleep(0.02)


def test_a_lost_machines_newest_checkpoint_is_found_by_its_key(hosts, tmp_path):
    ann, bob = hosts
    courier = Courier(ann, *WHICH)
    for step in (10, 20, 30):
        save(ann, step)
        arrives(tmp_path, step)
    courier.close(interrupted=False)
    assert on_remote(tmp_path) == ["step-00000020", "step-00000030"]      # as on a disk, the newest two
    shutil.rmtree(ann.root)
    assert fetch_newer(bob, *WHICH) == "step-00000030"
    taken = bob.checkpoints.joinpath(*WHICH) / "step-00000030"
    assert (taken / "state.json").read_text() == "state.json at 30" and fetch_newer(bob, *WHICH) == ""


def test_an_interrupted_training_leaves_its_last_checkpoint(hosts, tmp_path, monkeypatch):
    ann, bob = hosts
    monkeypatch.setattr(checkpoints, "LOOK_SECONDS", 3600)
    courier = Courier(ann, *WHICH)
    save(ann, 70)
    courier.close(interrupted=True)
    assert fetch_newer(bob, *WHICH) == "step-00000070"


@pytest.mark.parametrize("damage", ["flip", "half sent"])
def test_what_is_not_whole_is_passed_over_for_the_one_before(hosts, tmp_path, damage):
    ann, bob = hosts
    courier = Courier(ann, *WHICH)
    for step in (10, 20):
        save(ann, step)
        arrives(tmp_path, step)
    courier.close(interrupted=False)
    (newest,) = (tmp_path / "remote").rglob("step-00000020")
    if damage == "flip":
        (newest / "model.safetensors").write_text("other")
    else:
        newest.with_name("step-00000020.json").unlink()
    assert fetch_newer(bob, *WHICH) == "step-00000010"
    assert [path.name for path in bob.checkpoints.joinpath(*WHICH).iterdir()] == ["step-00000010"]


def test_a_finished_training_leaves_none(hosts, tmp_path):
    ann, _ = hosts
    courier = Courier(ann, *WHICH)
    save(ann, 10)
    arrives(tmp_path, 10)
    courier.close(interrupted=False)
    discard(ann, *WHICH)
    assert not [path for path in (tmp_path / "remote" / "genai").rglob("*") if path.is_file()]


def test_a_newer_one_of_this_machine_is_kept(hosts, tmp_path):
    ann, bob = hosts
    courier = Courier(ann, *WHICH)
    save(ann, 10)
    arrives(tmp_path, 10)
    courier.close(interrupted=False)
    save(bob, 50)
    assert fetch_newer(bob, *WHICH) == ""


def test_a_folder_of_this_machine_alone_gets_none(hosts, monkeypatch):
    ann, _ = hosts
    monkeypatch.delenv("GENAI_DVC_REMOTE")
    courier = Courier(ann, *WHICH)
    save(ann, 10)
    courier.close(interrupted=True)
    assert not list(ann.root.rglob("dvc-remote")) and fetch_newer(ann, *WHICH) == ""


def test_a_remote_that_hangs_does_not_hold_the_training_up(hosts, monkeypatch):
    ann, _ = hosts
    hanging, end = threading.Event(), threading.Event()
    monkeypatch.setattr(Courier, "_send", lambda *arguments: hanging.set() or end.wait(60))
    courier = Courier(ann, *WHICH)
    save(ann, 10)
    assert hanging.wait(20)
    began = time.monotonic()
    save(ann, 20)
    courier.close(interrupted=False)
    assert time.monotonic() - began < 10
    end.set()


def test_a_remote_that_refuses_is_warned_of_once_and_gets_the_next_one(hosts, tmp_path, caplog):
    ann, bob = hosts
    (tmp_path / "remote").write_text("no folder")
    courier = Courier(ann, *WHICH)
    save(ann, 10)
    time.sleep(0.5)
    save(ann, 20)
    time.sleep(0.5)
    (tmp_path / "remote").unlink()
    arrives(tmp_path, 20)
    courier.close(interrupted=False)
    said = [record.message for record in caplog.records if "checkpoints" in record.message]
    assert len(said) == 2 and "do not reach" in said[0] and "reach the remote again" in said[1]
    assert fetch_newer(bob, *WHICH) == "step-00000020"
