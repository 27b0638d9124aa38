"""A byte flipped in every artifact: found before use, fetched or made again, and said."""

import pytest

from tests.end_to_end.conftest import STAGES

pytestmark = [pytest.mark.slow, pytest.mark.heavy]


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def largest(directory):
    return max((file for file in directory.rglob("*") if file.is_file() and file.name != "manifest.json"),
               key=lambda file: file.stat().st_size)


def test_a_flipped_byte_in_each_artifact_is_found_and_healed(copied):
    before = copied.digests()
    for stage in STAGES:
        flip(largest(copied.artifact(stage)))
    done = copied.genai("run", "--preset", "smoke")
    for stage in STAGES:
        assert f"  {stage}: Fetched in" in done.stdout
        assert f"{stage}/" in done.stdout and f"{copied.artifact(stage).name} is damaged" in done.stdout
    assert copied.digests() == before


def test_where_every_copy_is_damaged_it_is_made_again(copied):
    """The artifact, the cache of DVC and its remote."""
    before = copied.digests()
    size = largest(copied.artifact("tokenize")).stat().st_size
    damaged = [file for folder in ("data/tokenize", ".dvc/cache", ".genai/dvc-remote") for file in
               (copied.root / folder).rglob("*") if file.is_file() and file.stat().st_size == size]
    assert len(damaged) == 3
    for file in damaged:
        file.chmod(0o644)
        flip(file)
    done = copied.genai("run", "--preset", "smoke", "--until", "tokenize")
    assert "tokenize: Completed in" in done.stdout and "is damaged" in done.stdout
    assert copied.digests() == before
