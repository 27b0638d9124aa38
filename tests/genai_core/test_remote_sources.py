"""Remote sources: read whole or not at all, never around a deployment's protection, and no secret is ever shown."""

import json
import os
import socket
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from genai_core.config.data import CollectConfig, FileSource, HubSource
from genai_core.config.pipeline import load_pipeline
from genai_core.context import Context
from genai_core.data.sources import remote
from genai_core.data.sources.files import file_digests_of, read_files
from genai_core.data.sources.hub import read_hub
from genai_core.data.sources.kinds import recognise_content
from genai_core.errors import InputError
from genai_core.stages import collect
from tests.end_to_end.helpers import S3


def source(*paths, **values):
    return FileSource(paths=paths, licence="own", **values)


def texts(given, root):
    return [record["text"] for _, record in read_files(given, "mine", root)]


class Handler(SimpleHTTPRequestHandler):
    """Serves files, cuts short what is called half, redirects what is called moved, and counts what it sends."""

    sent: list[str]

    def do_GET(self):
        self.sent.append(self.path)
        if "half" in self.path:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"text": "x"}\n')
        elif "moved" in self.path:
            self.redirect()
        else:
            super().do_GET()

    def do_HEAD(self):
        if "moved" in self.path:
            self.redirect()
        else:
            super().do_HEAD()

    def redirect(self):
        self.send_response(302)
        self.send_header("Location", "/secret/a.txt")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def web(tmp_path, monkeypatch):
    """A web server with a few files, the address of which this process may read."""
    monkeypatch.setenv("GENAI_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "web"
    (folder / "open").mkdir(parents=True)
    (folder / "secret").mkdir()
    (folder / "secret" / "a.txt").write_text("swordfish")
    (folder / "open" / "a.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    Handler.sent = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("GENAI_DATA_ROOTS", f"{tmp_path}:{address}/open")
    yield address
    server.shutdown()
    server.server_close()


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    monkeypatch.setenv("GENAI_CACHE", str(tmp_path / "cache"))
    server = S3(tmp_path / "s3").start()
    for name, value in server.credentials.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GENAI_DATA_ROOTS", f"{tmp_path}:s3://team/mine")
    yield server
    server.kill()


def test_a_file_of_a_web_server_is_read_and_its_digest_is_remembered(web, tmp_path):
    given = source(f"{web}/open/a.jsonl?download=true")
    assert texts(given, tmp_path) == ["one", "two"]
    assert not list((tmp_path / "cache" / "scratch").iterdir())
    Handler.sent.clear()
    first, second = (dict(file_digests_of(given, "mine", tmp_path)) for _ in range(2))
    assert first == second and list(first) == ["mine/0/a.jsonl"] and len(Handler.sent) == 1
    (tmp_path / "web" / "open" / "a.jsonl").write_text('{"text": "another length"}\n')
    assert dict(file_digests_of(given, "mine", tmp_path)) != first


def test_a_file_is_downloaded_once_by_all_the_looks_of_a_run(web, tmp_path, recorder):
    fields = {"kind": "files", "paths": [f"{web}/open/a.jsonl"], "licence": "own"}
    assert recognise_content("mine", FileSource(**fields), tmp_path).content == "documents"
    config = CollectConfig(sources={"mine": fields}, validation_fraction=0, test_fraction=0)
    collect.file_digests(config, tmp_path)
    (tmp_path / "out").mkdir()
    collect.run(config, out_dir=tmp_path / "out", context=Context(tmp_path, recorder, tmp_path))
    assert Handler.sent == ["/open/a.jsonl"]
    assert not list((tmp_path / "cache").glob("*/*.copy")), "what was read to the end is not kept"


def test_copies_that_nobody_came_back_for_go_after_a_day(web, tmp_path):
    forgotten = tmp_path / "cache" / "remote" / "forgotten.copy"
    forgotten.parent.mkdir(parents=True)
    forgotten.touch()
    os.utime(forgotten, (0, 0))
    dict(file_digests_of(source(f"{web}/open/a.jsonl"), "mine", tmp_path))
    assert len(list(forgotten.parent.glob("*.copy"))) == 1 and not forgotten.exists()


def test_all_copies_together_take_a_tenth_of_the_free_disk(web, tmp_path, monkeypatch):
    folder = tmp_path / "web" / "open"
    for number in range(4):
        (folder / f"{number}.txt").write_text("x" * 100)
    monkeypatch.setattr(remote.shutil, "disk_usage", lambda path: SimpleNamespace(free=2500))
    given = [source(f"{web}/open/{number}.txt") for number in range(4)]
    for each in given:
        dict(file_digests_of(each, "mine", tmp_path))
    kept = list((tmp_path / "cache" / "remote").glob("*.copy"))
    assert sum(copy.stat().st_size for copy in kept) == 200
    Handler.sent.clear()
    for each in (given[3], given[2], given[0]):
        texts(each, tmp_path)
    assert Handler.sent == ["/open/0.txt"], "the oldest went first"


def test_half_a_download_is_no_file(web, tmp_path):
    with pytest.raises(InputError, match=rf"collect.sources.mine.*{web}/open/half.jsonl"):
        texts(source(f"{web}/open/half.jsonl"), tmp_path)
    assert not list((tmp_path / "cache" / "scratch").iterdir())


def test_another_size_than_announced_is_no_file(web, tmp_path, monkeypatch):
    class Short:
        def get_file(self, path, copy):
            with open(copy, "wb") as out:      # noqa: PTH123
                out.write(b"xx")

    file = remote.RemoteFile("s3://team/a.txt", "team/a.txt", 5, "", None, Short())
    with pytest.raises(InputError, match=r"s3://team/a.txt: 2 of 5 bytes came"), remote.downloaded(file, "mine"):
        pass


def test_an_absent_file_and_a_server_that_does_not_answer_are_told(web, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"open/absent.txt: there is no such file"):
        texts(source(f"{web}/open/absent.txt?page=1"), tmp_path)
    monkeypatch.setenv("GENAI_DATA_ROOTS", "/")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(InputError, match="the server does not answer"):
            texts(source(f"http://127.0.0.1:{free.getsockname()[1]}/a.txt"), tmp_path)


def test_addresses_are_no_way_around_the_roots(web, tmp_path, monkeypatch):
    for path in ("/secret/a.txt", "/opener/a.jsonl", "/open/moved.txt"):
        with pytest.raises(InputError, match=r"outside what this process may read; GENAI_DATA_ROOTS") as caught:
            texts(source(web + path), tmp_path)
        assert "swordfish" not in str(caught.value)
    config = CollectConfig(sources={"stolen": source("s3://others/a.txt")})
    for roots in (str(tmp_path), "", "s3://other", "s3://others/a"):
        monkeypatch.setenv("GENAI_DATA_ROOTS", roots)
        with pytest.raises(InputError, match=r"s3://others/a.txt is outside what this process may read"):
            collect.file_digests(config, tmp_path)


@pytest.mark.parametrize(("address", "reason"), [
    ("https://me:swordfish@example.org/a.txt", "environment"),
    ("s3://AKIA:swordfish@bucket/a.txt", "AWS profile or ~/.netrc"),
    ("https://example.org/a.txt?X-Amz-Signature=swordfish", "looks like a signature"),
    ("https://example.org/a.txt?sv=1&sig=swordfish", "looks like a signature"),
    ("https://example.org/a.txt?access_token=swordfish", "looks like a signature"),
    ("https://example.org/a.txt#swordfish", "looks like a signature"),
    ("http://example.org/a.txt", "starts with s3://, gs://, https://"),
    ("ftp://example.org/a.txt", "starts with s3://"),
    ("file:///etc/passwd", "starts with s3://"),
    ("https://example.org/a/../../b.txt", "not an address of a file"),
    ("https://example.org/*.txt", "a web server lists no files"),
])
def test_addresses_with_secrets_and_of_other_schemes_are_refused(address, reason):
    with pytest.raises(InputError, match=reason) as caught:
        load_pipeline("smoke", {"collect.sources.mine": {"kind": "files", "paths": [address], "licence": "x"}})
    assert "swordfish" not in str(caught.value)
    with pytest.raises(InputError) as caught:      # of another type than the field
        load_pipeline("smoke", {"collect.sources.mine": {"kind": "files", "paths": address, "licence": "x"}})
    assert "swordfish" not in str(caught.value)


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("GENAI_DATA_ROOTS", "/")
    monkeypatch.setitem(__import__("sys").modules, "gcsfs", None)
    with pytest.raises(InputError, match=r"gs://bucket/a.txt needs another package: pip install gcsfs"):
        texts(source("gs://bucket/a.txt"), tmp_path)


def test_files_folders_and_patterns_of_s3(bucket, tmp_path, recorder):
    folder = bucket.bucket / "mine" / "deep"
    folder.mkdir(parents=True)
    for name, text in {"a.txt": "one", "deep/b.jsonl": '{"text": "two"}\n', "c.png": "pixels"}.items():
        (bucket.bucket / "mine" / name).write_text(text)
    assert texts(source("s3://team/mine/a.txt"), tmp_path) == ["one"]
    found = read_files(source("s3://team/mine"), "mine", tmp_path, recorder.note)
    assert [record["text"] for _, record in found] == ["one", "two"]
    assert recorder.notes[0] == "mine: passed over in the folder: 1 .png"
    with pytest.raises(InputError, match=r"s3://team/mine/c.png: unknown kind of file"):
        texts(source("s3://team/mine/c.png"), tmp_path)
    assert texts(source("s3://team/mine/**/*.jsonl"), tmp_path) == ["two"]
    config = CollectConfig(sources={"mine": source("s3://team/mine")}, validation_fraction=0, test_fraction=0)
    assert sorted(collect.file_digests(config, tmp_path)) == ["mine/0/a.txt", "mine/1/b.jsonl"]
    out = tmp_path / "out"
    out.mkdir()
    collect.run(config, out_dir=out, context=Context(tmp_path, recorder, tmp_path))
    assert "s3://team/mine" in (out / "DATA_CARD.md").read_text()
    with pytest.raises(InputError, match="no file matches s3://team/mine/nothing"):
        texts(source("s3://team/mine/nothing"), tmp_path)


def test_wrong_credentials_are_told_in_a_line_without_them(bucket, tmp_path, monkeypatch):
    (bucket.bucket / "mine").mkdir()
    (bucket.bucket / "mine" / "a.txt").write_text("one")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "swordfish")
    with pytest.raises(InputError, match=r"s3://team/mine/a.txt: access is refused; give credentials") as caught:
        texts(source("s3://team/mine/a.txt"), tmp_path)
    assert "swordfish" not in str(caught.value) and "\n" not in str(caught.value)


def hub_of(monkeypatch, rows, asked):
    def load_dataset(*names, **options):
        asked.append((names, options))
        yield from rows
        if "broken" in names[0]:
            raise OSError("GET https://cdn.example.org/a?X-Amz-Signature=swordfish failed")

    monkeypatch.setitem(__import__("sys").modules, "datasets", type("Library", (), {"load_dataset": load_dataset}))


def test_the_hub_is_streamed_with_every_kind_of_content(monkeypatch, recorder):
    asked = []
    hub_of(monkeypatch, [{"question": "Hi", "answer": "Hello"}, {"question": "Hi", "answer": None}], asked)
    given = HubSource(dataset="a/b", revision="1234567", licence="x", split="test", on_bad_row="skip")
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    told = []
    found = list(read_hub(given, "mine", recorder.note, lambda *row: told.append(row)))
    assert found == [("chats", {"messages": messages, "split": "test"})]
    assert asked == [(("a/b", None), {"split": "test", "revision": "1234567", "streaming": True})]
    assert recorder.notes == ["mine: a/b: questions and answers (question, answer)"] and told[0][1] == "a/b, row 2"


def test_what_the_hub_says_is_told_without_signatures(monkeypatch):
    hub_of(monkeypatch, [{"text": "one"}], [])
    rows = read_hub(HubSource(dataset="a/broken", revision="1234567", licence="x"), "mine")
    assert next(rows) == ("documents", {"text": "one"})
    with pytest.raises(InputError, match=r"cannot be loaded \(OSError: GET https://cdn.example.org/a failed\)"):
        next(rows)


def test_what_is_set_aside_is_written_and_counted(tmp_path, recorder):
    rows = [{"text": "fine " * 9}] * 3 + [{"text": None}, {"text": " "}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out"
    out.mkdir()
    config = CollectConfig(sources={"mine": source("a.jsonl", on_bad_row="skip")}, validation_fraction=0,
                           test_fraction=0)
    collect.run(config, out_dir=out, context=Context(tmp_path, recorder, tmp_path))
    written = [json.loads(line) for line in (out / "set_aside.jsonl").read_text().splitlines()]
    assert [(row["place"], row["row"]) for row in written] == [("a.jsonl, line 4", '{"text": null}'),
                                                              ("a.jsonl, line 5", '{"text": " "}')]
    assert any(note.startswith("mine: 2 rows set aside (1: no text in column 'text'") for note in recorder.notes)
