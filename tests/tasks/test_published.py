"""Two hosts that share a remote and nothing else: by key alone each finds what the other made."""

import errno
import hashlib
import logging
import shutil

import pytest

from genai_core.errors import InputError
from tasks.store import dvc, published, records
from tasks.store import remote as remotes
from tasks.store.artifacts import Store
from tasks.store.remote import RemoteRefuses, without_credentials
from tasks.store.workspace import Workspace
from tests.tasks.test_dvc import commit


@pytest.fixture
def hosts(tmp_path, monkeypatch):
    monkeypatch.setenv("GENAI_DVC_REMOTE", str(tmp_path / "remote"))
    ann, bob = Workspace(tmp_path / "ann"), Workspace(tmp_path / "bob")
    for host in (ann, bob):
        host.root.mkdir()
    return ann, bob


@pytest.fixture
def impatient(monkeypatch):
    """No pauses between tries."""
    monkeypatch.setattr("funcy.flow.time.sleep", lambda seconds: None)


@pytest.mark.parametrize("kind", ["dataset", "report"])
def test_a_bare_host_finds_an_artifact_and_how_it_was_made(hosts, kind):
    ann, bob = hosts
    artifact = commit(ann, "clean" if kind == "dataset" else "evaluate", kind=kind)
    records.write_record(ann, artifact, {"commit": "abc", "started": "2026-11-25", "cost": {"seconds": 3.0}})
    published.publish(ann, [artifact])
    assert published.fetch(bob, artifact.stage, kind, artifact.key) == artifact
    assert Store(bob).find(artifact.directory(bob)) == artifact
    assert records.read_record(bob, artifact.stage, artifact.key)["commit"] == "abc"
    assert published.fetch(bob, artifact.stage, kind, "0" * 16) is None


def test_looking_fetches_nothing(hosts):
    ann, bob = hosts
    artifact = commit(ann)
    published.publish(ann, [artifact])
    for entry in (published.find(bob, "clean", artifact.key), published.find_digest(bob, "clean", artifact.digest)):
        assert entry.digest == artifact.digest and entry.manifest["key"] == artifact.key
        assert published.read_file(bob, entry, "a.txt") == b"hello"
        assert published.read_file(bob, entry, "b.txt") is None
    assert not bob.data.exists() and not list((bob.root / ".dvc").rglob("*.dir"))


def test_both_hosts_name_the_same_data(hosts):
    ann, bob = hosts
    artifact = commit(ann)
    named = published.name_datasets(ann, [artifact])
    assert published.name_datasets(bob, [published.fetch(bob, "clean", "dataset", artifact.key)]) == named
    assert (ann.root / "data.dvc").read_text() == (bob.root / "data.dvc").read_text()


def test_another_remote_gets_everything_although_the_first_one_has_it(hosts, tmp_path, monkeypatch):
    ann, bob = hosts
    artifact = commit(ann)
    published.name_datasets(ann, [artifact])
    assert published.all_known(ann, [artifact])
    monkeypatch.setenv("GENAI_DVC_REMOTE", str(tmp_path / "other"))
    assert not published.all_known(ann, [artifact]) and published.find(bob, "clean", artifact.key) is None
    published.name_datasets(ann, [artifact])
    assert published.fetch(bob, "clean", "dataset", artifact.key) == artifact


def test_a_remote_that_was_wiped_gets_everything_again(hosts, tmp_path, impatient, monkeypatch):
    ann, bob = hosts
    artifact = commit(ann)
    published.name_datasets(ann, [artifact])
    shutil.rmtree(tmp_path / "remote")
    assert not published.all_known(ann, [artifact])
    published.publish(ann, [artifact], ask=True)
    assert published.all_known(ann, [artifact]) and published.fetch(bob, "clean", "dataset", artifact.key) == artifact
    monkeypatch.setattr(remotes.Remote, "read_json", refuse)
    assert published.all_known(ann, [artifact])      # a remote that is silent for a while stops no cached run
    published.publish(ann, [artifact])
    with pytest.raises(RemoteRefuses):
        published.publish(ann, [artifact], ask=True)


def refuse(*arguments, **named):
    raise RemoteRefuses("read: the remote does not answer")


def test_what_is_damaged_in_the_cache_comes_from_the_remote(hosts):
    ann, _ = hosts
    artifact = commit(ann)
    published.publish(ann, [artifact])
    (cached,) = [file for file in (ann.root / ".dvc" / "cache").rglob("*") if file.is_file()
                 and file.read_bytes() == b"hello"]
    cached.chmod(0o644)
    cached.write_text("hellp")
    cached.chmod(0o444)
    shutil.rmtree(artifact.directory(ann))
    assert published.fetch(ann, "clean", "dataset", artifact.key) == artifact


def test_what_is_damaged_on_the_remote_is_not_taken(hosts, tmp_path):
    ann, bob = hosts
    artifact = commit(ann)
    published.publish(ann, [artifact])
    for file in (tmp_path / "remote").rglob("*"):
        if file.is_file() and file.read_bytes() == b"hello":
            file.chmod(0o644)
            file.write_text("hellp")
    assert published.fetch(bob, "clean", "dataset", artifact.key) is None
    assert not artifact.directory(bob).exists() and not list(bob.scratch.iterdir())


def test_a_list_on_the_remote_leads_nowhere_else(hosts, tmp_path):
    ann, bob = hosts
    artifact = commit(ann)
    published.publish(ann, [artifact])
    (listing,) = (tmp_path / "remote").rglob("*.dir")
    text = listing.read_text().replace('"a.txt"', '"../../../../escaped"')
    with dvc.repository(bob) as opened:
        md5 = f"{hashlib.md5(text.encode()).hexdigest()}.dir"
        place = tmp_path / "remote" / "files" / "md5" / md5[:2] / md5[2:]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        with dvc.remote(bob) as remote:
            assert not dvc.receive(bob, opened, remote, "a trap", md5, bob.scratch / "x" / "y")
    assert not list(tmp_path.rglob("escaped"))


def failing(monkeypatch, failures: list[Exception]):
    """The remote's folder fails so many times and then does what it should."""
    from dvc_objects.fs.local import LocalFileSystem

    real = LocalFileSystem.put_file

    def put_file(self, source, target, **named):
        if failures and "/remote/" in target:
            raise failures.pop()
        return real(self, source, target, **named)

    monkeypatch.setattr(LocalFileSystem, "put_file", put_file)


def test_a_remote_that_fails_some_times_is_asked_again(hosts, monkeypatch, impatient):
    ann, bob = hosts
    artifact = commit(ann)
    failing(monkeypatch, [ConnectionError("reset by peer")] * (remotes.TRIES - 1))
    published.publish(ann, [artifact])
    assert published.fetch(bob, "clean", "dataset", artifact.key) == artifact


@pytest.mark.parametrize(("failure", "told"), [
    (ConnectionError("reset by peer"), "does not answer as it should after 6 tries"),
    (PermissionError("Access Denied"), "refuses"), (OSError(errno.ENOSPC, "No space left on device"), "is full"),
    (OSError(errno.EIO, "QuotaExceeded: the bucket's quota"), "is full")])
def test_a_remote_that_goes_on_failing_is_told_of_in_one_line_and_nothing_is_lost(hosts, monkeypatch, impatient,
                                                                                  failure, told):
    ann, bob = hosts
    artifact = commit(ann)
    with monkeypatch.context() as broken:
        failing(broken, [failure] * 100)
        with pytest.raises(InputError, match=r'write|push') as refusal:
            published.name_datasets(ann, [artifact])
    assert told in str(refusal.value) and "\n" not in str(refusal.value)
    assert Store(ann).find(artifact.directory(ann)) == artifact and published.find(bob, "clean", artifact.key) is None
    published.name_datasets(ann, [artifact])
    assert published.fetch(bob, "clean", "dataset", artifact.key) == artifact


def test_a_remote_that_is_none_is_told_of_without_its_password(hosts, monkeypatch, caplog):
    ann, _ = hosts
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(remotes, "TRIES", 1)
    monkeypatch.setenv("GENAI_DVC_REMOTE", "webdavs://user:a-secret@127.0.0.1:9/dvc")
    with pytest.raises(RemoteRefuses) as refusal:
        published.publish(ann, [commit(ann)])
    assert "webdavs://127.0.0.1:9/dvc" in str(refusal.value) and "a-secret" not in str(refusal.value) + caplog.text


@pytest.mark.parametrize("text", ["https://user:a@b@host/x", "cannot reach ssh://user:secret@host:22/dvc"])
def test_no_address_is_printed_with_its_credentials(text):
    assert "@" not in without_credentials(text)
