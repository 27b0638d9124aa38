"""Package archives: taken by hash, read without unpacking, and what their readers find in them."""

import io
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter

import pytest

from genai_core.config.data import ArchiveSource, CollectConfig
from genai_core.config.presets import PRESETS, read_yaml
from genai_core.context import Context
from genai_core.data.shards.tables import read_table
from genai_core.data.sources import archives
from genai_core.data.sources.archives import Archive, fetch
from genai_core.data.sources.readers import READERS
from genai_core.errors import InputError
from genai_core.stages import collect


def archive_source(sha256="0" * 64):
    return ArchiveSource(package="chatterbot-corpus==1.3.3", sha256=sha256, reader="chatterbot", licence="BSD-3-Clause")


REAL = "86de5300afb9a80826386339d3bec79c0a72eb0358abb8327e2ecef5ae0ce154"


def test_an_archive_with_another_hash_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("GENAI_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=r"collect.sources.talk: .* does not have sha256 0000.*nothing was used"):
        fetch(archive_source(), "talk")
    assert not list((tmp_path / "downloads").iterdir())


def test_looking_for_a_package_leaves_setuptools_and_with_it_compilation_possible():
    asked = ("import sys; from genai_core.data.sources.package_index import _default_index; print(_default_index());"
             "assert 'pip' not in sys.modules; import setuptools")
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("https://"), done.stderr


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
    pairs = [(record["source_text"], record["target_text"], record["split"]) for _, record in records("headings")]
    assert {split for _, _, split in pairs} == {"train", "validation", "test"}
    first = next(source for source, heading, _ in pairs if heading == "Valkyria Chronicles III")
    assert first.startswith("Senjō no Valkyria 3") and " = " not in first
    assert ("Gameplay" in {heading for _, heading, _ in pairs}) and all(source for source, _, _ in pairs)


def test_chitchat_gives_each_conversation_and_the_mean_of_the_marks_that_people_gave():
    source = ArchiveSource(package="chitchat-dataset==0.9.0", reader="chitchat", licence="MIT", sha256=(
        "7bf89f36645e2d5ec87d53370c8e851b5a688479c7beb7079cb4c87fc5acea3e"))
    records = list(READERS["chitchat"](fetch(source, "chitchat")))
    chats = [record for table, record in records if table == "chats"]
    ratings = [record for table, record in records if table == "ratings"]
    assert len(chats) == 4017
    assert len(ratings) == 2377 and Counter(record["rating"] for record in ratings).most_common(1) == [(10, 755)]
    assert all(1 <= record["rating"] <= 10 for record in ratings)
    of = {record["split_by"]: record["messages"] for record in chats}
    assert all(record["messages"] == of[record["split_by"]] for record in ratings)
    for messages in of.values():
        assert [message["role"] for message in messages] == ["user", "assistant"] * (len(messages) // 2)


def test_an_image_survives_collecting(tmp_path, recorder):
    definitions = read_yaml(str(PRESETS / "families" / "sources.yaml"))
    config = CollectConfig(sources={"mnist": definitions["mnist"] | {"limit": 40}}, test_fraction=0.3)
    collect.run(config, out_dir=tmp_path, context=Context(tmp_path, recorder, tmp_path))
    rows = read_table(tmp_path, "images")
    assert len(rows) == 40 and {row["split"] for row in rows} >= {"train", "test"}
    assert {row["label"] for row in rows} == set(range(10)) and rows[0]["pixels"] != rows[-1]["pixels"]
