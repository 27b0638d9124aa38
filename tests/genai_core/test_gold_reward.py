"""The gold reward: praise that reads like text wins; shouting, repetition and silence lose; no prompt is in it."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from genai_core.config.training import RlhfConfig
from genai_core.data.instructions import opening_and_continuation, review_openings
from genai_core.data.tables import SCHEMAS, write_table
from genai_core.evaluation.gold_reward import GoldReward, base_likelihood, distinct_pairs, gold_labels

WORDS = {"the": -2.0, "film": -3.0, "is": -2.5, "and": -2.5, "was": -3.0, "a": -2.0, "story": -4.0, "actors": -4.5}
GOOD, BAD = ["great", "wonderful", "moving", "superb"], ["dull", "boring", "awful", "bad"]
OWN = [f"the {subject} was {word} and the {other} is {second} film"
       for subject, other in (("film", "story"), ("story", "actors"), ("actors", "film"))
       for word, second in zip(GOOD + BAD, BAD[::-1] + GOOD[::-1], strict=True)]
OPENINGS = ["This film"] * len(OWN)


def likelihood(openings, answers):
    """A base model that knows words and that two adjectives in a row are unlikely."""
    adjectives = {*GOOD, *BAD}

    def mean(answer):
        words = answer.split()
        logs = [WORDS.get(word, -6.0) - 8.0 * (word in adjectives and before in adjectives)
                for before, word in zip(["", *words], words, strict=False)]
        return float(np.mean(logs)) if logs else 0.0

    return np.array([mean(answer) for answer in answers])


@pytest.fixture(scope="module")
def gold():
    texts = [f"the {noun} is {word} and {other}" for noun in WORDS for group in (GOOD, BAD)
             for word, other in pairwise(group)]
    labels = [int(any(word in text.split() for word in GOOD)) for text in texts]
    return GoldReward(texts, labels, likelihood)


def gain(gold, answer: str) -> float:
    return float(gold.score(OPENINGS, [answer] * len(OWN), gold.standard(OPENINGS, OWN)).mean())


def test_the_reference_has_mean_0_and_deviation_1(gold):
    scores = gold.score(OPENINGS, OWN, gold.standard(OPENINGS, OWN))
    assert scores.mean() == pytest.approx(0, abs=1e-9)
    assert scores.std() == pytest.approx(1)


def test_praise_that_reads_like_the_references_answers_wins_and_blame_loses(gold):
    assert gain(gold, "the film was great and the story is superb film") > 0.5
    assert gain(gold, "the film was dull and the story is awful film") < 0


@pytest.mark.parametrize("answer", ["great great great great great great", "great wonderful moving superb great superb",
                                    "", "  "])
def test_shouting_praise_repeating_it_and_silence_lose(gold, answer):
    assert gain(gold, answer) < 0


def test_distinct_pairs():
    assert distinct_pairs("a b a b a") == 0.5
    assert distinct_pairs("One one ONE") == 0.5
    assert distinct_pairs("one") == 1 and distinct_pairs("") == 0


def test_the_likelihood_is_that_of_the_answers_tokens_alone(tiny_model, tokenizer):
    openings, answers = ["This film", "I"], ["is good.", "saw it and it was long, long, long."]
    together = base_likelihood(tiny_model, tokenizer, torch.device("cpu"))(openings, answers)
    for opening, answer, mean in zip(openings, answers, together, strict=True):
        head, tail = (tokenizer.encode(text, add_special_tokens=False).ids for text in (opening, f" {answer}"))
        log_probs = torch.log_softmax(tiny_model(torch.tensor([head + tail]))[0], dim=-1)
        expected = [log_probs[len(head) + number - 1, token].item() for number, token in enumerate(tail)]
        assert mean == pytest.approx(np.mean(expected), abs=1e-4)


def test_nothing_that_rlhf_used_teaches_the_gold_reward(tmp_path):
    texts = [f"Film number {number} is as good a film as any other one that I saw. It is long." for number in range(40)]
    rows = [{"id": str(number), "source": "mine", "split": "train", "licence": "x", "text": text, "label": number % 2,
             "raw_words": None} for number, text in enumerate(texts)]
    for name in SCHEMAS:
        write_table(rows if name == "documents" else [], name, tmp_path)
    rated = [{"id": "0", "source": "mine", "split": split, "licence": "x", "text": text, "rating": 1.0, "raters": 9}
             for text, split in ((texts[0].upper(), "train"), (texts[1], "test"))]
    write_table(rated, "ratings", tmp_path)
    config = RlhfConfig(learning_rate=1e-3, batch_size=8, group_size=4, steps=5, prompt_words=3)
    prompts = review_openings(tmp_path, "train", 3, config.seed)[:config.prompts]
    kept, labels = gold_labels(tmp_path, config)
    prompted = {text for text in texts if opening_and_continuation(text, 3)[0] in prompts}
    assert len(prompts) == 10 and set(kept) == set(texts[2:]) - prompted and len(kept) == len(labels)
    assert not {opening_and_continuation(text, 3)[0] for text in kept} & set(prompts)
