"""Sources: every kind of file is read, and whatever is wrong with one is said in a line that names it."""

import csv
import gzip
import io
import json
import tarfile
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from genai_core.config.data import ArchiveSource, CollectConfig, FileSource, HubSource
from genai_core.config.presets import PRESETS, read_yaml
from genai_core.context import Context
from genai_core.data.sources import archives
from genai_core.data.sources.archives import Archive, fetch
from genai_core.data.sources.hub import read_hub
from genai_core.data.sources.readers import READERS
from genai_core.data.sources.text_files import read_files
from genai_core.data.splits import split_of
from genai_core.data.tables import read_table
from genai_core.errors import InputError
from genai_core.stages import collect


def files(*paths, **values):
    return FileSource(paths=paths, licence="own", **values)


def texts(source, root):
    return [record.get("text") for _, record in read_files(source, "mine", root)]


def write_all(root, prose):
    (root / "a.txt").write_text(prose[0])
    (root / "b.md").write_text(prose[1])
    (root / "c.html").write_text(f"<p>{prose[2][:50]}</p>")
    (root / "d.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in prose[3:5]))
    with (root / "e.csv").open("w", newline="") as out:
        csv.writer(out).writerows([["text"], [prose[5]], ["two\nlines"]])
    pq.write_table(pa.table({"text": prose[6:8]}), root / "f.parquet")
    (root / "g.txt.gz").write_bytes(gzip.compress(prose[8].encode()))
    (root / "h.jsonl.zst").write_bytes(zstandard.compress(json.dumps({"text": prose[9]}).encode()))


def test_every_kind_of_file_is_read(tmp_path, prose):
    write_all(tmp_path, prose)
    assert texts(files("*"), tmp_path) == [
        prose[0], prose[1], f"<p>{prose[2][:50]}</p>", *prose[3:5], prose[5], "two\nlines", *prose[6:10]]


def test_modules_are_documents_and_empty_ones_are_left_out(tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("\n")
    (tmp_path / "package" / "one.py").write_text("x = 1\n")
    assert texts(files("**/*.py"), tmp_path) == ["x = 1\n"]


def test_the_collected_tables_are_the_same_bytes_each_time(tmp_path, prose, recorder):
    write_all(tmp_path, prose)
    config = CollectConfig(sources={"mine": files("*.txt", "*.jsonl*", "*.parquet")})
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        collect.run(config, out_dir=tmp_path / name, context=Context(tmp_path, recorder, tmp_path))
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()
    assert len(read_table(tmp_path / "one", "documents")) == 6
    assert "own" in (tmp_path / "one" / "DATA_CARD.md").read_text()


def test_chats_of_ones_own(tmp_path):
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    (tmp_path / "chats.jsonl").write_text(json.dumps({"messages": chat}) + "\n")
    ((table, record),) = read_files(files("chats.jsonl", content="chats"), "mine", tmp_path)
    assert table == "chats" and record["messages"] == chat


@pytest.mark.parametrize(("name", "content", "options", "message"), [
    ("a.txt", b"", {}, "the file is empty"),
    ("a.txt", b"caf\xe9", {}, "not UTF-8 text at byte 3"),
    ("a.pdf", b"%PDF", {}, "unknown kind of file"),
    ("a.jsonl", b'{"text": "x"}\n{oops', {}, r"a.jsonl, line 2: not JSON"),
    ("a.jsonl", b'{"body": "x"}\n', {}, r"no text in column 'text' \(there are body\); set text_column"),
    ("a.parquet", b"PAR1nope", {}, "not a readable Parquet file"),
    ("a.txt.gz", b"not gzip", {}, "cannot be read"),
    ("a.jsonl", b'{"messages": [{"role": "user", "content": "x"}]}\n', {"content": "chats"}, "is not the assistant's"),
    ("a.jsonl", b'{"messages": [{"role": "robot", "content": "x"}]}\n', {"content": "chats"}, "needs a role"),
])
def test_a_bad_file_is_named_with_what_is_wrong(tmp_path, name, content, options, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        list(read_files(files(name, **options), "mine", tmp_path))
    assert name in str(caught.value)


def test_a_pattern_without_files_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"collect.sources.mine.paths: no file matches .*nothing"):
        list(read_files(files("nothing/*.txt"), "mine", tmp_path))


def test_the_hub_needs_its_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    source = HubSource(dataset="a/b", revision="1234567", licence="x")
    with pytest.raises(InputError, match=r"genai-core\[huggingface\]"):
        list(read_hub(source, "stories"))


def archive_source(sha256="0" * 64):
    return ArchiveSource(package="chatterbot-corpus==1.3.3", sha256=sha256, reader="chatterbot", licence="BSD-3-Clause")


REAL = "86de5300afb9a80826386339d3bec79c0a72eb0358abb8327e2ecef5ae0ce154"


def test_an_archive_with_another_hash_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("GENAI_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=r"collect.sources.talk: .* does not have sha256 0000.*nothing was used"):
        fetch(archive_source(), "talk")
    assert not list((tmp_path / "downloads").iterdir())


def test_an_archive_damaged_in_the_cache_is_fetched_again(tmp_path, monkeypatch):
    monkeypatch.setenv("GENAI_CACHE", str(tmp_path))
    names = fetch(archive_source(REAL), "talk").names()
    (file,) = (tmp_path / "downloads" / REAL).iterdir()
    file.write_bytes(b"damaged")
    assert fetch(archive_source(REAL), "talk").names() == names


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_MEMBER_BYTES", 1000)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("big", b"0" * 100_000)
    with pytest.raises(InputError, match="unpacks to 100,000 bytes"):
        Archive(tmp_path / "bomb.zip", "bomb.zip").read("big")


def test_members_are_read_by_name_and_never_unpacked(tmp_path):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as out:
        info = tarfile.TarInfo("../../escape.txt")
        info.size = 2
        out.addfile(info, io.BytesIO(b"hi"))
    (tmp_path / "evil.tar").write_bytes(data.getvalue())
    assert Archive(tmp_path / "evil.tar", "evil.tar").read("../../escape.txt") == b"hi"
    assert [path.name for path in tmp_path.iterdir()] == ["evil.tar"]
    with pytest.raises(InputError, match="has no file absent"):
        Archive(tmp_path / "evil.tar", "evil.tar").read("absent")


def test_splits_keep_equal_texts_together():
    assert split_of("Hello, World!", 0.3, 0.3) == split_of("hello world", 0.3, 0.3)
    splits = [split_of(f"text {number}", 0.1, 0.2) for number in range(5000)]
    assert 0.08 < splits.count("validation") / 5000 < 0.12
    assert 0.18 < splits.count("test") / 5000 < 0.22


def test_the_readers_of_the_families_find_what_their_archives_are_known_to_hold():
    definitions = read_yaml(str(PRESETS / "families" / "sources.yaml"))

    def records(name):
        source = ArchiveSource(**definitions[name])
        return list(READERS[source.reader](fetch(source, name)))

    digits = records("mnist")
    assert len(digits) == 5000 and {table for table, _ in digits} == {"images"}
    assert [sum(record["label"] == label for _, record in digits) for label in range(10)] == [500] * 10
    assert all(len(record["pixels"]) == 28 * 28 for _, record in digits)
    tunes = [record["text"] for _, record in records("tunes")]
    assert len(tunes) > 4000 and all(tune.startswith("X:") and tune.count("\nX:") == 0 for tune in tunes)
    pairs = [(record["text"], record["title"], record["split"]) for _, record in records("headings")]
    assert {split for _, _, split in pairs} == {"train", "validation", "test"}
    first = next(source for source, heading, _ in pairs if heading == "Valkyria Chronicles III")
    assert first.startswith("Senjō no Valkyria 3") and " = " not in first
    assert ("Gameplay" in {heading for _, heading, _ in pairs}) and all(source for source, _, _ in pairs)


def test_an_image_survives_collecting(tmp_path, recorder):
    definitions = read_yaml(str(PRESETS / "families" / "sources.yaml"))
    config = CollectConfig(sources={"mnist": definitions["mnist"] | {"limit": 40}}, test_fraction=0.3)
    collect.run(config, out_dir=tmp_path, context=Context(tmp_path, recorder, tmp_path))
    rows = read_table(tmp_path, "images")
    assert len(rows) == 40 and {row["split"] for row in rows} >= {"train", "test"}
    assert {row["label"] for row in rows} == set(range(10)) and rows[0]["pixels"] != rows[-1]["pixels"]
