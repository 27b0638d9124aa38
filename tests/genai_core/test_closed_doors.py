"""Whoever may start a run may not run code of theirs or read other files of the machine that runs it."""

import base64
import hashlib
import http.server
import io
import tarfile
import threading
from pathlib import Path

import pytest

from genai_core.config.data import ArchiveSource, FileSource, HubSource
from genai_core.config.pipeline import load_pipeline
from genai_core.context import Context
from genai_core.data.sources.archives import fetch
from genai_core.data.sources.files import read_files
from genai_core.data.sources.hub import read_hub
from genai_core.errors import InputError
from genai_core.roots import allow_everything
from genai_core.stages import collect


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """A source distribution that leaves a mark when any step of its build runs, in a folder that serves packages."""
    monkeypatch.setenv("GENAI_CACHE", str(tmp_path / "cache"))
    mark = tmp_path / "mark"
    build = f"import pathlib\npathlib.Path({str(mark)!r}).touch()\n"
    members = {"setup.py": f"{build}from setuptools import setup\nsetup(name='trap', version='1.0')\n",
               "backend.py": f"{build}from setuptools.build_meta import *\n",
               "pyproject.toml": "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n",
               "PKG-INFO": "Metadata-Version: 2.1\nName: trap\nVersion: 1.0\n"}
    folder = tmp_path / "simple" / "trap"
    folder.mkdir(parents=True)
    with tarfile.open(folder / "trap-1.0.tar.gz", "w:gz") as out:
        for name, text in members.items():
            info = tarfile.TarInfo(f"trap-1.0/{name}")
            info.size = len(text)
            out.addfile(info, io.BytesIO(text.encode()))
    return folder / "trap-1.0.tar.gz", mark


def source_of(file: Path) -> ArchiveSource:
    return ArchiveSource(package="trap==1.0", sha256=hashlib.sha256(file.read_bytes()).hexdigest(), reader="plays",
                         licence="x")


def test_no_step_of_the_build_of_a_package_is_run(trap, monkeypatch):
    file, mark = trap
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(file.parent))
    assert "trap-1.0/setup.py" in fetch(source_of(file), "trap").names()
    assert not mark.exists(), "the build of the package ran"


@pytest.fixture
def private_index(trap):
    """The address of an index that wants a user and a password, without them."""
    wanted = "Basic " + base64.b64encode(b"reader:s3cret").decode()
    root = str(trap[0].parents[1])

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=root)

        def translate_path(self, path):
            return super().translate_path(path.removeprefix("/simple"))

        def do_GET(self):
            if self.headers.get("Authorization") == wanted:
                return super().do_GET()
            self.send_response(401)
            self.send_header("WWW-Authenticate", "Basic")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}/simple"
    server.shutdown()


def test_the_index_of_pip_and_its_password_are_used(trap, private_index, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", f"http://reader:s3cret@{private_index}")
    assert "trap-1.0/setup.py" in fetch(source_of(trap[0]), "trap").names() and not trap[1].exists()


def test_an_index_that_refuses_is_told_without_the_password(trap, private_index, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", f"http://reader:wrong-s3cret@{private_index}")
    for option in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.setenv(option, "")
    with pytest.raises(InputError, match=r"collect.sources.trap: no index .* has trap==1.0") as caught:
        fetch(source_of(trap[0]), "trap")
    assert "s3cret" not in str(caught.value)


def test_tests_that_are_run_come_from_the_known_archive_alone():
    with pytest.raises(ValueError, match="takes no archive but that"):
        ArchiveSource(package="trap==1.0", sha256="0" * 64, reader="human_eval", licence="x")


def test_a_dataset_of_the_hub_is_neither_a_path_nor_a_folder_here(tmp_path, monkeypatch):
    for name in ("/etc", "../secrets/x", "json", "~/x", "a/b/c"):
        with pytest.raises(ValueError, match="dataset"):
            HubSource(dataset=name, revision="1234567", licence="x")
    monkeypatch.setitem(__import__("sys").modules, "datasets", type("Library", (), {"load_dataset": None}))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "own").mkdir(parents=True)
    with pytest.raises(InputError, match="a file or folder data/own here"):
        list(read_hub(HubSource(dataset="data/own", revision="1234567", licence="x"), "mine"))


@pytest.fixture
def secret(tmp_path, monkeypatch):
    """A workspace, and beside it a file of somebody else."""
    monkeypatch.delenv("GENAI_DATA_ROOTS")
    workspace = tmp_path / "workspace"
    (workspace / "texts").mkdir(parents=True)
    (workspace / "texts" / "mine.txt").write_text("mine")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "secret.txt").write_text("the password is swordfish")
    (workspace / "file.txt").symlink_to(tmp_path / "other" / "secret.txt")
    (workspace / "folder").symlink_to(tmp_path / "other")
    monkeypatch.setenv("GENAI_HOME", str(workspace))
    return workspace


def read(workspace: Path, pattern: str) -> list[str]:
    source = FileSource(paths=(pattern,), licence="x")
    return [record["text"] for _, record in read_files(source, "mine", workspace)]


WAYS_OUT = ["{other}/secret.txt", "{other}/*", "{other}/nothing.txt", "/*/**/secret.txt", "../other/secret.txt",
            "texts/../../other/*.txt", "*/../../other/secret.txt", "file.txt", "folder/secret.txt", "folder/*",
            "f*.txt", "f*/secret.txt", "~/secret.txt"]


@pytest.mark.parametrize("pattern", WAYS_OUT)
def test_files_outside_the_workspace_are_not_read(secret, pattern):
    with pytest.raises(InputError, match=r"collect.sources.mine.paths: .* GENAI_DATA_ROOTS in its environment"):
        read(secret, pattern.format(other=secret.parent / "other"))


def test_what_is_outside_is_not_told_either(secret):
    """The words for a file that is there and for one that is not are the same."""
    told = []
    for name in ("secret.txt", "absent.txt"):
        with pytest.raises(InputError) as caught:
            read(secret, str(secret.parent / "other" / name))
        told.append(str(caught.value).replace(name, "NAME"))
    assert told[0] == told[1]


def test_files_of_the_workspace_and_below_the_named_roots_are_read(secret, monkeypatch):
    assert read(secret, "texts/*.txt") == ["mine"] == read(secret, f"{secret}/**/mine.txt")
    monkeypatch.setenv("GENAI_DATA_ROOTS", f"/nowhere:{secret.parent / 'other'}")
    assert read(secret, "file.txt") == ["the password is swordfish"] == read(secret, f"{secret.parent}/other/*")


def test_a_command_that_the_owner_types_reads_every_file_unless_the_setting_says_less(secret, monkeypatch):
    monkeypatch.setenv("GENAI_DATA_ROOTS", "/nowhere")
    allow_everything()
    with pytest.raises(InputError):
        read(secret, "file.txt")
    monkeypatch.delenv("GENAI_DATA_ROOTS")
    allow_everything()
    assert read(secret, "../other/secret.txt") == ["the password is swordfish"]
    monkeypatch.delenv("GENAI_DATA_ROOTS")


def test_overrides_do_not_widen_the_roots(secret, recorder):
    """As a trigger sends them: a source of files elsewhere in place of the preset's."""
    stolen = {"kind": "files", "paths": [str(secret.parent / "other" / "*.txt")], "licence": "x"}
    config = load_pipeline("smoke", {"collect.sources.stolen": stolen}).collect
    with pytest.raises(InputError, match="outside what this process may read"):
        collect.file_digests(config, secret)
    only = config.model_copy(update={"sources": {"stolen": config.sources["stolen"]}})
    with pytest.raises(InputError, match="outside what this process may read"):
        collect.run(only, out_dir=secret, context=Context(secret, recorder, secret))


@pytest.mark.parametrize("way", ["directly", "extended", "linked", "climbing"])
def test_a_preset_file_elsewhere_is_not_read(secret, way):
    other = secret.parent / "other" / "settings.yaml"
    other.write_text("password: swordfish\n")
    (secret / "mine.yaml").write_text(f"extends: {other}\n")
    (secret / "link.yaml").symlink_to(other)
    preset = {"directly": other, "extended": secret / "mine.yaml", "linked": secret / "link.yaml",
              "climbing": secret / "texts" / ".." / ".." / "other" / "settings.yaml"}[way]
    with pytest.raises(InputError, match=r"preset file: .* GENAI_DATA_ROOTS") as caught:
        load_pipeline(str(preset))
    assert "swordfish" not in str(caught.value)


def test_a_preset_file_of_the_workspace_is_read(secret):
    (secret / "mine.yaml").write_text("extends: smoke\nclean: {min_words: 7}\n")
    assert load_pipeline(str(secret / "mine.yaml")).clean.min_words == 7
