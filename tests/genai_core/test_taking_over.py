"""What was collected and encoded before is taken over, and comes out as if it had been made again."""

import hashlib
import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from genai_core.config.data import CleanConfig, CollectConfig, FileSource, TokenizeConfig
from genai_core.context import Context
from genai_core.data.tokens.encoding import encode_shard
from genai_core.errors import InputError
from genai_core.stages import clean, collect, tokenize

WORDS = ["the", "quick", "brown", "fox", "of", "a", "small", "town", "and", "its", "lazy", "dog", "have", "seen"]


class Notes:
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)

    def progress(self, *arguments, **figures):
        pass

    metrics = progress


def text(seed: int) -> str:
    words = [WORDS[int(hashlib.sha256(f"{seed} {place}".encode()).hexdigest(), 16) % len(WORDS)] for place in range(60)]
    return " ".join(words)


def lines(path: Path, numbers) -> Path:
    path.write_text("".join(f'{{"text": "{text(number)}"}}\n' for number in numbers))
    return path


def bytes_of(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in sorted(directory.rglob("*"))
            if path.is_file()}


def source(path: Path) -> FileSource:
    return FileSource(paths=(str(path),), licence="own")


def chain(tmp_path: Path, name: str, sources, earlier: str = "", tokenizer=(), mapper=map) -> tuple[dict, list[str]]:
    """Collect, clean and tokenize into folders of `name`, taking over from those of `earlier`; the bytes and notes."""
    notes = Notes()
    context = Context(tmp_path / "checkpoints", notes, root=tmp_path, map=mapper)
    made = {stage: tmp_path / f"{stage}-{name}" for stage in ("collect", "clean", "tokenize")}
    for directory in made.values():
        directory.mkdir()

    def knowing(stage):
        return replace(context, earlier=(tmp_path / f"{stage}-{earlier}",) if earlier else ())

    config = CollectConfig(sources=sources, validation_fraction=0.1, test_fraction=0.1)
    collect.run(config, out_dir=made["collect"], context=knowing("collect"))
    clean.run(CleanConfig(max_duplicate_line_ratio=1, max_top_ngram_ratio=1, near_duplicate_threshold=1),
              collected=made["collect"], out_dir=made["clean"], context=context)
    tokenize.run(TokenizeConfig(vocab_size=300, sources=tokenizer), cleaned=made["clean"], out_dir=made["tokenize"],
                 context=knowing("tokenize"))
    return {stage: bytes_of(directory) for stage, directory in made.items()}, notes.notes


def test_a_new_source_leaves_the_others_collected_and_encoded(tmp_path):
    old = {"day-1": source(lines(tmp_path / "1.jsonl", range(80)))}
    both = old | {"day-2": source(lines(tmp_path / "2.jsonl", range(80, 120)))}
    chain(tmp_path, "before", old, tokenizer=("day-1",))
    afresh, _ = chain(tmp_path, "afresh", both, tokenizer=("day-1",))
    grown, notes = chain(tmp_path, "grown", both, "before", tokenizer=("day-1",))
    assert grown == afresh, "to the byte"
    assert "unchanged since they were collected before: day-1" in notes
    assert "1 of 2 training shards were encoded before and are taken over" in notes


def test_what_is_handed_to_a_worker_for_a_shard_does_not_grow_with_the_number_of_shards(tmp_path):
    sizes = []

    def mapper(function, items):
        for item in items:
            if getattr(function, "func", None) is encode_shard:
                sizes.append(len(pickle.dumps((function, item))))
            yield function(item)

    def days(count: int) -> dict:
        return {f"day-{day}": source(lines(tmp_path / f"{day}.jsonl", range(day * 40, day * 40 + 40)))
                for day in range(count)}

    chain(tmp_path, "one", days(1), tokenizer=("day-0",))
    chain(tmp_path, "many", days(9), tokenizer=("day-0",))
    for count, earlier in ((1, "one"), (9, "many")):
        chain(tmp_path, f"again-{count}", days(count), earlier, tokenizer=("day-0",), mapper=mapper)
    assert len(sizes) == 10 and max(sizes) < sizes[0] + 50


def test_what_changed_is_made_again(tmp_path):
    path = lines(tmp_path / "1.jsonl", range(80))
    chain(tmp_path, "before", {"day": source(path)})
    lines(path, range(5, 85))
    afresh, _ = chain(tmp_path, "afresh", {"day": source(path)})
    made, notes = chain(tmp_path, "made", {"day": source(path)}, "before")
    assert made == afresh
    assert not [note for note in notes if "before" in note]


def test_another_fraction_collects_again_and_another_tokenizer_encodes_again(tmp_path):
    first = {"day-1": source(lines(tmp_path / "1.jsonl", range(80)))}
    both = first | {"day-2": source(lines(tmp_path / "2.jsonl", range(80, 160)))}
    chain(tmp_path, "before", first)
    _, notes = chain(tmp_path, "after", both, "before")
    assert "unchanged since they were collected before: day-1" in notes
    assert not [note for note in notes if "encoded before" in note], "the tokenizer is of both sources now"


def test_a_tokenizer_of_sources_without_text_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"tokenize\.sources: nowhere have no training text"):
        chain(tmp_path, "x", {"day": source(lines(tmp_path / "1.jsonl", range(80)))}, tokenizer=("nowhere",))
