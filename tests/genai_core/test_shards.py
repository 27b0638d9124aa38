"""Shards: one, two and four workers write the same bytes, and a worker that dies is told."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from genai_core.config.data import CleanConfig, CollectConfig, FileSource, TokenizeConfig
from genai_core.context import Context, serial
from genai_core.data.clean import runs
from genai_core.data.clean.deduplicate import jaccard, shingle_sets
from genai_core.data.clean.words import hash_words
from genai_core.data.shards import files, scaling
from genai_core.data.shards.tables import SCHEMAS, complete_tables, iterate_table, read_table, write_table
from genai_core.data.tokens.token_files import read_tokens
from genai_core.errors import InputError
from genai_core.mapping import Processes
from genai_core.stages import clean, collect, tokenize


@pytest.fixture
def corpus(tmp_path, prose):
    """Some hundred pages with repeats of every kind, of two sources, and a few chats."""
    generator = random.Random(0)
    pages = [page[:3000] for page in prose if len(page) > 400] * 2
    pages += [page.replace("the", "a", 1) for page in pages[:20]]
    pages += [pages[3] + " &amp; <b>more</b>", "x", "Ünïcode " * 9]
    generator.shuffle(pages)
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": page}) + "\n" for page in pages[::2]))
    (tmp_path / "b.jsonl").write_text("".join(json.dumps({"text": page}) + "\n" for page in pages[1::2]))
    chats = [{"messages": [{"role": "user", "content": f"Question {number % 7}?"},
                           {"role": "assistant", "content": pages[number % 5][:200]}]} for number in range(40)]
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(chat) + "\n" for chat in chats))
    sources = {name: FileSource(paths=(f"{name}.jsonl",), licence="own") for name in ("a", "b")}
    sources["chats"] = FileSource(paths=("chats.jsonl",), licence="own", content="chats")
    return CollectConfig(sources=sources, validation_fraction=0.05, test_fraction=0.1)


def run_all(corpus, root, name, mapper):
    out = {stage: root / name / stage for stage in ("collect", "clean", "tokenize")}
    for path in out.values():
        path.mkdir(parents=True)
    context = Context(root, root=root, map=mapper)
    metrics = {**collect.run(corpus, out_dir=out["collect"], context=context).metrics,
               **clean.run(CleanConfig(), collected=out["collect"], out_dir=out["clean"], context=context).metrics,
               **tokenize.run(TokenizeConfig(vocab_size=600, max_characters=200_000), cleaned=out["clean"],
                              out_dir=out["tokenize"], context=context).metrics}
    files = {str(file.relative_to(root / name)): file.read_bytes() for file in (root / name).rglob("*")
             if file.is_file()}
    return files, metrics


def test_one_two_and_four_workers_write_the_same_bytes(tmp_path, corpus):
    expected, figures = run_all(corpus, tmp_path, "serial", serial)
    assert figures["documents_removed"] > 100 and figures["documents_kept"] > 50 and figures["chats_removed"] > 0
    for workers in (1, 2, 4):
        with Processes(workers) as mapper:
            files, metrics = run_all(corpus, tmp_path, str(workers), mapper)
        assert sorted(files) == sorted(expected), "and nothing of the scratch is left"
        assert [name for name in files if files[name] != expected[name]] == []
        assert metrics == figures


def test_what_is_kept_does_not_depend_on_how_rows_are_grouped(tmp_path, corpus, monkeypatch):
    """Shards of any size and joins in any number of ranges: the rows are the same in the same order."""
    _, figures = run_all(corpus, tmp_path, "large", serial)
    monkeypatch.setattr(files, "SHARD_CHARACTERS", 5000)
    monkeypatch.setattr(runs, "RANGE_ROWS", 7)
    _, others = run_all(corpus, tmp_path, "small", serial)
    assert len(list((tmp_path / "small/clean/documents").iterdir())) > 10
    assert len(list((tmp_path / "large/clean/documents").iterdir())) == 2
    for table in clean.TABLES:
        assert read_table(tmp_path / "small/clean", table) == read_table(tmp_path / "large/clean", table)
    assert others == figures
    assert (tmp_path / "small/clean/removed_sample.jsonl").read_bytes() == \
        (tmp_path / "large/clean/removed_sample.jsonl").read_bytes()
    one, other = (read_tokens(tmp_path / name / "tokenize", "train") for name in ("large", "small"))
    assert one.ids[:].tolist() == other.ids[:].tolist() and one.starts.tolist() == other.starts.tolist()


def test_another_source_leaves_the_shards_of_the_first_as_they_are(tmp_path, corpus):
    less = corpus.model_copy(update={"sources": {"a": corpus.sources["a"]}})
    for name, config in (("less", less), ("more", corpus)):
        (tmp_path / name).mkdir()
        collect.run(config, out_dir=tmp_path / name, context=Context(tmp_path, root=tmp_path))
    for shard in files.shards_of(tmp_path / "less", "documents"):
        assert shard.read_bytes() == (tmp_path / "more/documents" / shard.name).read_bytes()


def test_a_source_that_is_collected_again_writes_the_same_files(tmp_path):
    """As after a worker has died of it: nothing is appended to what the first attempt wrote."""
    rows = [{"text": f"A page with number {number}."} for number in range(50)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"text": 7}, {"text": 8}]))
    config = CollectConfig(sources={"a": FileSource(paths=("a.jsonl",), licence="own", on_bad_row="skip")})
    for folder in ("out", "scratch"):
        (tmp_path / folder).mkdir()
    attempts = []
    for _ in range(2):
        collect.collect_source("a", config, tmp_path, tmp_path / "out", tmp_path / "scratch")
        attempts.append({path.name: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()})
    assert attempts[0]["set_aside.a.jsonl"].count(b"\n") == 2
    assert attempts[1] == attempts[0]
    assert not list((tmp_path / "scratch").iterdir())


def test_a_document_that_stays_repeats_none_that_stays(tmp_path, corpus):
    run_all(corpus, tmp_path, "all", serial)
    texts = [row["text"] for row in read_table(tmp_path / "all/clean", "documents")]
    flat, bounds = shingle_sets(hash_words(texts))
    sets = [flat[start:end] for start, end in pairwise(bounds)]
    alike = [jaccard(one, other) for number, one in enumerate(sets) for other in sets[:number]]
    assert max(alike) < CleanConfig().near_duplicate_threshold
    removed = [json.loads(line) for line in (tmp_path / "all/clean/removed_sample.jsonl").read_text().splitlines()]
    assert {row["reason"] for row in removed} >= {"exact_duplicate", "near_duplicate", "too_few_words"}
    assert all(row["detail"].split("/")[0] in ("a", "b") for row in removed if row["reason"] == "near_duplicate")


def test_tables_are_read_row_by_row_as_they_are_read_whole(tmp_path):
    rows = [{"id": f"{source}/{number}", "source": source, "split": split, "licence": "x", "text": str(number),
             "label": None, "raw_words": None}
            for source in ("a", "a-b", "c/part") for number in range(5) for split in ("train", "test")]
    write_table(rows, "documents", tmp_path)
    assert read_table(tmp_path, "documents") == rows == list(iterate_table(tmp_path, "documents"))
    assert read_table(tmp_path, "documents", split="test", source="c/part") == [
        row for row in rows if row["split"] == "test" and row["source"] == "c/part"]
    assert read_table(tmp_path, "documents", source="a") == [row for row in rows if row["source"] == "a"]
    with pytest.raises(InputError, match="chats is missing: the artifact is not one of a data stage"):
        read_table(tmp_path, "chats")
    complete_tables(tmp_path, SCHEMAS)
    assert read_table(tmp_path, "chats") == []


def square(number):
    return number * number


def fail(number):
    raise InputError(f"number {number} is wrong")


def die(number):
    os.kill(os.getpid(), signal.SIGKILL)


def test_answers_come_in_order_and_errors_come_back():
    with Processes(3) as mapper:
        assert list(mapper(square, range(50))) == [number * number for number in range(50)]
        with pytest.raises(InputError, match="number 3 is wrong"):
            list(mapper(fail, [3]))
        assert list(mapper(square, [7])) == [49], "a worker outlives an error"


def test_items_are_drawn_as_they_are_needed():
    drawn = []
    with Processes(2) as mapper:
        answers = mapper(square, (drawn.append(number) or number for number in range(1000)))
        assert next(answers) == 0
        assert len(drawn) < 10


def test_a_worker_that_dies_is_told():
    with Processes(2) as mapper, pytest.raises(InputError, match="a worker of the data stages ended with status -9"):
        list(mapper(die, [1]))


def test_workers_outlive_the_thread_that_first_called_them():
    with Processes(1) as mapper:
        first = threading.Thread(target=lambda: list(mapper(square, [1])))
        first.start()
        first.join()
        assert list(mapper(square, [7])) == [49]


BUSY = """
import re, sys, time
from functools import partial
from genai_core.mapping import Processes
with Processes(2) as mapper:
    print("started", flush=True)
    list(mapper({call}))
"""


@pytest.mark.parametrize("call", ["time.sleep, [60, 60]", "partial(re.search, '^(a+)+$'), ['a' * 40 + 'b'] * 2"])
def test_no_worker_outlives_the_process_that_started_it_be_it_in_a_call_that_never_lets_a_thread_run(call):
    parent = subprocess.Popen([sys.executable, "-c", BUSY.format(call=call)], stdout=subprocess.PIPE,
                              cwd=Path(__file__).parents[2])
    assert parent.stdout.readline() == b"started\n"
    deadline = time.monotonic() + 30
    while len(workers := psutil.Process(parent.pid).children()) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1)
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(workers, timeout=10)
    for worker in alive:
        worker.kill()
    assert not alive


def test_the_documents_table_is_what_the_arithmetic_says():
    text = (Path(__file__).parents[2] / "docs/scaling.md").read_text()
    assert text.partition("<!-- scaling -->\n")[2].partition("<!-- end")[0] == scaling.table()
    with pytest.raises(ValueError, match="must be positive"):
        scaling.estimate(0)
