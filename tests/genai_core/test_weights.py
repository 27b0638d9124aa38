"""Weights of sources in pretraining: exact over epochs, and a function of the step alone."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from genai_core.data.tokens.batches import WeightedWindows, Windows
from genai_core.data.tokens.token_files import read_tokens, write_header
from genai_core.errors import InputError

LENGTH, SIZES = 4, {"books": 83, "mail-2024": 41, "web": 203}


@pytest.fixture
def tokens(tmp_path: Path):
    """A training file of three sources, of which every token is a number of its own; books has two parts."""
    ids = np.arange(sum(SIZES.values()), dtype="<u2")
    parts, end = {}, 0
    for source, size in SIZES.items():
        for number, part in enumerate(np.array_split(ids[end:end + size], 2 if source == "books" else 1)):
            part.tofile(tmp_path / f"train-{source}-{number:05d}.bin")
            parts[f"train-{source}-{number:05d}"] = len(part)
        end += size
    np.array([0], "<i8").tofile(tmp_path / "train.starts")
    write_header(tmp_path, "train", len(ids), 1, len(ids), 300, None, parts)
    return read_tokens(tmp_path, "train")


def sources_of(batches, file):
    """How often each source comes, and each window of it by its first token, of batches."""
    by_source, starts = Counter(), []
    for batch in batches:
        for row in batch["ids"].tolist():
            (source,) = [name for name, (start, end) in file.sources.items() if start <= row[0] and row[-1] + 1 < end]
            by_source[source] += 1
            starts.append((source, row[0]))
    return by_source, starts


def weighted(file, weights, batch_size=1):
    return WeightedWindows(file, weights, LENGTH, batch_size, 0, torch.device("cpu"))


def test_a_token_file_knows_where_each_source_lies(tokens):
    assert tokens.sources == {"books": (0, 83), "mail-2024": (83, 124), "web": (124, 327)}


@pytest.mark.parametrize("weights", [{}, {"books": 2.0}, {"books": 0.5, "web": 0.25}, {"mail-2024": 0.0, "web": 3.0}])
def test_an_epoch_has_each_source_as_often_as_its_weight_says(tokens, weights):
    windows = weighted(tokens, weights)
    by_source, _ = sources_of((windows.batch(step) for step in range(windows.windows)), tokens)
    of_source = {name: (size - 1) // LENGTH - 1 for name, size in SIZES.items()}
    assert by_source == Counter({name: round(weights.get(name, 1.0) * count) for name, count in of_source.items()
                                 if weights.get(name, 1.0)})


def test_a_pass_over_a_source_has_each_window_once_whatever_the_weights(tokens):
    windows = weighted(tokens, {"books": 0.3, "web": 2.5})
    _, starts = sources_of((windows.batch(step) for step in range(12 * windows.windows)), tokens)
    for source, (first, _) in tokens.sources.items():
        own = [(start - first) // LENGTH for name, start in starts if name == source]
        count = (SIZES[source] - 1) // LENGTH - 1
        passes = len(own) // count
        assert set(Counter(own).values()) <= {passes, passes + 1}


def test_where_training_stands_follows_from_the_step_alone(tokens):
    windows, again = weighted(tokens, {"web": 0.5}, batch_size=8), weighted(tokens, {"web": 0.5}, batch_size=8)
    straight = [windows.batch(step)["ids"] for step in range(20)]
    assert all(torch.equal(again.batch(step)["ids"], straight[step]) for step in (19, 3, 11))


def test_no_window_reads_over_the_end_of_its_source_and_targets_follow_ids(tokens):
    windows = weighted(tokens, {"books": 1.7}, batch_size=4)
    for step in range(60):
        batch = windows.batch(step)
        assert torch.equal(batch["targets"], batch["ids"] + 1)
        sources_of([batch], tokens)      # finds one source for each row


def test_a_weight_of_no_source_and_weights_that_leave_nothing_are_refused(tokens):
    with pytest.raises(InputError, match=r"pretrain.weights: there is no source 'news' .*; there are books, mail-2024"):
        weighted(tokens, {"news": 2.0})
    with pytest.raises(InputError, match="no window of any source is left"):
        weighted(tokens, dict.fromkeys(SIZES, 0.0))
    assert Windows(tokens, LENGTH, 1, 0, torch.device("cpu")).windows > 70
