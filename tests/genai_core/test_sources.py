"""Sources: every kind of file is read, and whatever is wrong with one is said in a line that names it."""

import csv
import gzip
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from genai_core.config.data import CollectConfig, FileSource, HubSource
from genai_core.context import Context
from genai_core.data.shards.splits import split_of
from genai_core.data.shards.tables import read_table
from genai_core.data.sources.files import read_files
from genai_core.data.sources.formats import files as formats
from genai_core.data.sources.formats import json_rows
from genai_core.data.sources.hub import read_hub
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


def test_every_kind_of_table_gives_the_same_rows(tmp_path):
    """json in its four forms, jsonl, csv, tsv, parquet, and Arrow as a file and as a stream; each compressed too."""
    rows = [{"text": "one, \"two\"", "label": "a"}, {"text": "two\nlines é 😀", "label": "b"}]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    table = pa.Table.from_pylist(rows)
    separated = [io.StringIO(newline=""), io.StringIO(newline="")]
    for out, delimiter in zip(separated, ",\t", strict=True):
        csv.writer(out, delimiter=delimiter).writerows([rows[0].keys(), *(row.values() for row in rows)])
    sinks = [io.BytesIO() for _ in range(3)]
    pq.write_table(table, sinks[0])
    with pa.ipc.new_file(sinks[1], table.schema) as out:
        out.write_table(table)
    with pa.ipc.new_stream(sinks[2], table.schema) as out:
        out.write_table(table)
    contents = {"array.json": json.dumps(rows, indent=1), "mapping.json": json.dumps({"version": 1, "data": rows}),
                "lines.json": lines, "escaped.json": json.dumps(rows, ensure_ascii=False), "a.jsonl": lines,
                "a.csv": separated[0].getvalue(), "a.tsv": separated[1].getvalue(), "a.parquet": sinks[0].getvalue(),
                "file.arrow": sinks[1].getvalue(), "stream.arrow": sinks[2].getvalue()}
    for name, content in contents.items():
        data = content.encode() if isinstance(content, str) else content
        for ending, packed in (("", data), (".gz", gzip.compress(data)), (".zst", zstandard.compress(data))):
            (tmp_path / (name + ending)).write_bytes(packed)
            found = [record for _, record in read_files(files(name + ending), "mine", tmp_path)]
            assert found == rows, name + ending


def test_a_json_file_is_read_row_by_row(tmp_path, monkeypatch):
    """Rows that are longer together than what one may be, in pieces that end within a row."""
    monkeypatch.setattr(json_rows, "_CHUNK", 50)
    monkeypatch.setattr(formats, "MAX_RECORD_BYTES", 2000)
    rows = [{"text": f"{number} " + "é\\\"" * 20, "n": [number, {}, []], "x": 1.5e3} for number in range(200)]
    for content in (rows, {"meta": {"a": [1, 2]}, "rows": rows, "n": 3}):
        (tmp_path / "a.json").write_text(json.dumps(content, indent=2))
        assert texts(files("a.json"), tmp_path) == [row["text"] for row in rows]
    (tmp_path / "a.json").write_text(json.dumps([*rows, {"text": "x" * 3000}]))
    with pytest.raises(InputError, match=r"a.json, row 201: longer than"):
        texts(files("a.json"), tmp_path)


def test_one_object_is_one_row_also_when_it_holds_messages(tmp_path):
    chat = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
    (tmp_path / "a.json").write_text(json.dumps(chat))
    assert list(read_files(files("a.json"), "mine", tmp_path)) == [("chats", chat)]


def test_a_folder_is_read_whole_but_for_what_is_hidden_or_unknown(tmp_path, recorder):
    folder = tmp_path / "texts"
    (folder / "deep").mkdir(parents=True)
    (folder / ".git").mkdir()
    (folder / ".git" / "config.txt").write_text("hidden")
    (folder / "deep" / "circle").symlink_to(folder)
    for name, text in {"a.txt": "one", "deep/b.md": "two", "c.png": "pixels", ".hidden.txt": "hidden"}.items():
        (folder / name).write_text(text)
    found = [record["text"] for _, record in read_files(files("texts"), "mine", tmp_path, recorder.note)]
    assert found == ["one", "two"]
    assert recorder.notes[0] == "mine: passed over in the folder: 1 .png"
    assert texts(files("texts/**/*.md"), tmp_path) == ["two"]      # not once more for each turn of the circle
    (folder / "rows.jsonl").write_text('{"text": "three"}\n')
    (folder / "README.md").write_text("what the data is")
    assert texts(files("texts"), tmp_path) == ["one", "two", "three"]
    assert texts(files("texts", content="documents"), tmp_path) == ["what the data is", "one", "two", "three"]


@pytest.mark.parametrize("path", ["data", "data/mine.txt", "data/*.txt", "."])
def test_the_folder_of_the_pipelines_own_datasets_is_no_source(tmp_path, path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.txt").write_text("DVC would remove it")
    with pytest.raises(InputError, match=r"mine.txt lies in the folder of the pipeline's own datasets.* another one"):
        texts(files(path), tmp_path)


def test_links_in_a_circle_are_told(tmp_path):
    (tmp_path / "a.txt").symlink_to(tmp_path / "b.txt")
    (tmp_path / "b.txt").symlink_to(tmp_path / "a.txt")
    with pytest.raises(InputError, match=r"collect.sources.mine.paths: .*a.txt cannot be followed: .* in a circle"):
        texts(files("a.txt"), tmp_path)


def test_a_saved_dataset_keeps_the_splits_that_it_holds_apart(tmp_path):
    """The layout that `datasets.save_to_disk` writes of a DatasetDict."""
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    for split in ("train", "test"):
        (tmp_path / "saved" / split).mkdir()
        for name in ("state.json", "dataset_info.json", "cache-12.arrow"):
            (tmp_path / "saved" / split / name).write_text('{"features": {}}')
        table = pa.table({"text": [f"a {split} text"]})
        with (tmp_path / "saved" / split / "data-00000-of-00001.arrow").open("wb") as out, \
                pa.ipc.new_stream(out, table.schema) as stream:
            stream.write_table(table)
    found = [record for _, record in read_files(files("saved"), "mine", tmp_path)]
    assert found == [{"text": "a test text", "split": "test"}, {"text": "a train text"}]
    found = [record["split"] for _, record in read_files(files("saved", split="train"), "mine", tmp_path)]
    assert found == ["train", "train"]


def test_modules_are_documents_and_empty_ones_are_left_out(tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("\n")
    (tmp_path / "package" / "one.py").write_text("x = 1\n")
    assert texts(files("**/*.py"), tmp_path) == ["x = 1\n"]


def test_the_collected_tables_are_the_same_bytes_each_time(tmp_path, prose, recorder):
    write_all(tmp_path, prose)
    config = CollectConfig(sources={"mine": files("*.txt", "*.jsonl*", "*.parquet")}, validation_fraction=0,
                           test_fraction=0)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        collect.run(config, out_dir=tmp_path / name, context=Context(tmp_path, recorder, tmp_path))
    for file in filter(Path.is_file, (tmp_path / "one").rglob("*")):
        assert file.read_bytes() == (tmp_path / "two" / file.relative_to(tmp_path / "one")).read_bytes()
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
    ("a.jsonl", b'{"body": "x"}\n', {}, r"no columns of a known shape: .* \(there are body\); set `columns`"),
    ("a.jsonl", b'{"body": "x"}\n', {"columns": {"text": "words"}}, r"no column 'words', .* \(there are body\)"),
    ("a.jsonl", b'{"text": NaN}\n', {}, "no text in column 'text'"),
    ("a.jsonl", b'{"text": null}\n', {}, "no text in column 'text'"),
    ("a.jsonl", b'{"text": " "}\n', {}, "line 1: the text in column 'text' is empty"),
    ("a.jsonl", b'["x"]\n', {}, "line 1: a row is an object with columns"),
    ("a.jsonl", b"", {}, "there is no row in a.jsonl"),
    ("a.jsonl", b'{"text": "x"}\n', {"content": "chats"}, r"no columns of chats: messages, .* \(there are text\)"),
    ("a.txt", b"x", {"content": "chats"}, "a .txt file is a document, and `content` says chats"),
    ("a.json", b'{"text": "x"', {}, "a.json, after row 0: the file is broken off"),
    ("a.json", b'[{"text": "x"}, {"te', {}, "a.json, row 2: not JSON .* half a download"),
    ("a.json", b'[{"text": "x"}, oops]', {}, "a.json, row 2: not JSON"),
    ("a.json", b'[{"text": "caf\xe9"}]', {}, "a.json, row 1: not UTF-8"),
    ("a.json", b'"text"', {}, "a.json: not JSON rows; a .json file holds an array of rows"),
    ("a.json", b'{"a": [{"text": "x"}], "b": [{"text": "x"}]}', {}, "two lists of rows, 'a' and 'b'"),
    ("a.csv", b'text,n\n"one,1\ntwo,2\n', {}, "a.csv, line 2: not csv .* is a quotation mark left open"),
    ("a.csv", b"text,n\none,1\ntwo\n", {}, "a.csv, line 3: 1 fields where the first line names 2 columns"),
    ("a.arrow", b"ARROW1nope", {}, "not a readable Arrow file"),
    ("a.jsonl.zst", zstandard.compress(b'{"text": "x"}\n' * 9)[:-5], {}, "a.jsonl.zst: cannot be read .* half a"),
    ("a.jsonl.gz", gzip.compress(b'{"text": "x"}\n' * 9, mtime=0)[:-5], {}, "a.jsonl.gz: cannot be read .* half a"),
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
    with pytest.raises(InputError, match=r"constraints.txt -e '.\[huggingface\]'"):
        list(read_hub(source, "stories"))


def test_splits_keep_equal_texts_together():
    assert split_of("Hello, World!", 0.3, 0.3) == split_of("hello world", 0.3, 0.3)
    splits = [split_of(f"text {number}", 0.1, 0.2) for number in range(5000)]
    assert 0.08 < splits.count("validation") / 5000 < 0.12
    assert 0.18 < splits.count("test") / 5000 < 0.22


@pytest.mark.parametrize(("splits", "fields", "is_told"), [
    (["train", "train"], {}, True), (["train", "test"], {}, False), (["train", ""], {}, False),
    (["train", "train"], {"split": "train"}, False)])
def test_a_column_that_holds_nothing_out_is_named(tmp_path, recorder, splits, fields, is_told):
    rows = [json.dumps({"text": f"{number} fine days", "split": split}) for number, split in enumerate(splits)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    given = FileSource(paths=("rows.jsonl",), licence="own", **fields)
    list(read_files(given, "mine", tmp_path, recorder.note))
    told = "mine: its column `split` says train of every row, so that nothing of it is held out; let some rows say"
    assert any(note.startswith(told) for note in recorder.notes) == is_told
