"""The data of families: nothing of the held-out text is left in what they train on, and what went is told."""

import pytest

from genai_core.context import Context
from genai_core.data.shards.tables import SCHEMAS, write_table
from genai_core.families.classification import reviews
from genai_core.families.classification.config import ReviewsConfig
from genai_core.families.encoder_decoder import pairs
from genai_core.families.encoder_decoder.config import PairsConfig
from genai_core.families.labels import LABELS


def words(text, first, count):
    return " ".join(text.split()[first:first + count])


@pytest.fixture
def collected(tmp_path, prose):
    """Reviews and translations, of which one training row nearly repeats a held-out one and another quotes it."""
    held_out = words(prose[0], 0, 40)
    texts = [(words(prose[number], 0, 40), "train") for number in range(4, 16)] + [
        (words(prose[1], 0, 40), "validation"), (held_out, "test"),
        (f"{held_out} indeed", "train"),
        (f"{words(prose[2], 0, 30)} {words(held_out, 10, 20)} {words(prose[3], 0, 30)}", "train")]
    common = [{"id": str(number), "source": "reviews/imdb", "split": split, "licence": "x"}
              for number, (_, split) in enumerate(texts)]
    tables = {
        "documents": [{**row, "text": text, "label": LABELS[number % 2], "raw_words": None}
                      for number, (row, (text, _)) in enumerate(zip(common, texts, strict=True))],
        "pairs": [{**row, "source": "tatoeba", "source_text": text, "target_text": "hola"}
                  for row, (text, _) in zip(common, texts, strict=True)],
    }
    for name in SCHEMAS:
        write_table(tables.get(name, []), name, tmp_path)
    return tmp_path


@pytest.fixture
def out_dir(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def test_reviews_to_train_on_hold_nothing_of_held_out_ones(collected, out_dir, recorder):
    result = reviews.run(ReviewsConfig(vocab_size=300), collected=collected, out_dir=out_dir,
                         context=Context(out_dir, recorder))
    assert len(reviews.load_reviews(out_dir, "train").texts) == result.metrics["train_reviews"] == 12
    assert result.metrics["train_shared_with_held_out"] == 2
    assert any("train_shared_with_held_out 2" in note for note in recorder.notes)


def test_pairs_to_train_on_hold_nothing_of_held_out_ones(collected, out_dir, recorder):
    config = PairsConfig(vocab_size=300, tasks=("translate", "sentiment"))
    result = pairs.run(config, collected=collected, out_dir=out_dir,
                         context=Context(out_dir, recorder))
    train = pairs.read_pairs(out_dir, "train")
    assert [sum(pair.task == task for pair in train) for task in config.tasks] == [12, 12]
    for task in config.tasks:
        assert result.metrics[f"train/{task}"] == 12
        assert result.metrics[f"train/{task}_shared_with_held_out"] == 2
    assert any("train/translate_shared_with_held_out 2" in note for note in recorder.notes)
