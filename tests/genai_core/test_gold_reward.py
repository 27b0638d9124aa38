"""The gold reward: praise that reads like text wins; shouting, repetition and silence lose; no prompt is in it."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import TfidfVectorizer

from genai_core.config.release import Gold
from genai_core.config.tasks import Task
from genai_core.config.training import RlhfConfig
from genai_core.data.instruction.examples import prompts_of
from genai_core.data.instruction.judgements import judgements, position
from genai_core.errors import InputError
from genai_core.evaluation.gold_reward import GoldReward, base_likelihood, distinct_pairs, gold_labels, gold_scorer
from tests.genai_core.tables import document, preference, rating, turns, write_tables

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


TASKS = {"sentiment": Task(content="labelled", last_words=5), "continuation": Task(content="documents",
                                                                                   opening_words=3)}
GOLD = Gold(task="sentiment", label="positive")


def config(**fields) -> RlhfConfig:
    return RlhfConfig(learning_rate=1e-3, batch_size=8, group_size=4, steps=5, **fields)


@pytest.fixture(scope="module")
def gold(tmp_path_factory):
    """Learned from labels of praise and of blame."""
    texts = [(f"the {noun} is {word} and {other}", label) for noun in WORDS
             for group, label in ((GOOD, "positive"), (BAD, "negative")) for word, other in pairwise(group)]
    directory = write_tables(tmp_path_factory.mktemp("labels"), documents=[document(text, label=label)
                                                                           for text, label in texts])
    scorer, learned_from = gold_scorer(directory, GOLD, [config()], TASKS, ())
    assert learned_from == f"{len(texts)} labelled records of sentiment"
    return GoldReward(scorer, likelihood)


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
    together = base_likelihood(tiny_model, tokenizer)(openings, answers)
    for opening, answer, mean in zip(openings, answers, together, strict=True):
        head, tail = (tokenizer.encode(text, add_special_tokens=False).ids for text in (opening, f" {answer}"))
        log_probs = torch.log_softmax(tiny_model(torch.tensor([head + tail]))[0], dim=-1)
        expected = [log_probs[len(head) + number - 1, token].item() for number, token in enumerate(tail)]
        assert mean == pytest.approx(np.mean(expected), abs=1e-4)


TEXTS = [f"Film number {number} is as good a film as any other one that I saw. It is long." for number in range(40)]


def test_nothing_that_rlhf_used_teaches_the_gold_reward(tmp_path):
    documents = [document(text, label=("negative", "positive")[number % 2]) for number, text in enumerate(TEXTS)]
    rated = [rating(TEXTS[0].upper(), 1.0), rating(TEXTS[1], 1.0, split="test")]
    write_tables(tmp_path, documents=documents, ratings=rated)
    setting = config(tasks=("continuation",))
    prompts = prompts_of(TASKS, setting.tasks, tmp_path, "train", setting.seed)[:setting.prompts]
    openings = {example.subject for _, example in prompts}
    kept, labels = gold_labels(tmp_path, GOLD, [setting], TASKS, ())
    prompted = {text for text in TEXTS if " ".join(text.split()[:3]) in openings}
    assert len(openings) == 10 and set(kept) == set(TEXTS[2:]) - prompted and len(kept) == len(labels)
    assert labels == [TEXTS.index(text) % 2 == 1 for text in kept]
    other = config(tasks=("continuation",), seed=5)
    of_other, of_both = (set(gold_labels(tmp_path, GOLD, some, TASKS, ())[0]) for some in ([other], [setting, other]))
    assert of_both == set(kept) & of_other < set(kept), "nothing that any of several trainings has as a prompt"


def test_the_gold_reward_learns_nothing_that_the_reward_model_was_given(tmp_path):
    write_tables(tmp_path, ratings=[], preferences=[], documents=[
        document(f"a {word} film, number {number}", label=label, source="mine/films")
        for number in range(40) for word, label in (("good", "positive"), ("bad", "negative"))])
    setting = GOLD.model_copy(update={"fraction": 0.5})
    kept, _ = gold_labels(tmp_path, setting, [config()], TASKS, ("mine/films",))
    given = {each.subject for each in judgements(tmp_path, "train", ("mine/films",), setting).rated}
    assert kept and given and not given & set(kept) and len(given) + len(kept) == 80
    of_all = gold_labels(tmp_path, setting, [config()], TASKS, ())[0]
    assert len(of_all) == 80, "of sources that are not named it has all"


def test_a_label_that_no_record_has_is_an_error(tmp_path):
    write_tables(tmp_path, documents=[document(text, label="negative") for text in TEXTS])
    with pytest.raises(InputError, match=r"evaluate\.gold: the training records of sentiment do not have both the "
                                         "label 'positive' and another one"):
        gold_labels(tmp_path, GOLD, [config()], TASKS, ())


@pytest.mark.parametrize("kind", ["ratings", "preferences"])
def test_without_a_task_the_share_of_the_judgements_that_is_left_to_it_teaches_it(tmp_path, kind, monkeypatch):
    """What people rated high or preferred scores higher; the reward model's share says the opposite and is not read."""
    praise, blame = (f"the film was {words}" for words in ("great and moving", "dull and awful"))
    tables = {"preferences": [], "ratings": []}
    for asked in (f"What do you say of the film {number}?" for number in range(60)):
        good, bad = (praise, blame) if position(asked) < Gold().fraction else (blame, praise)
        tables["preferences"].append(preference(asked, good, bad))
        tables["ratings"] += [rating(turns(asked, good), 5.0), rating(turns(asked, bad), 1.0)]
    write_tables(tmp_path, **{kind: tables[kind]})
    scorer, learned_from = gold_scorer(tmp_path, Gold(), [config()], {}, ())
    monkeypatch.setattr(TfidfVectorizer, "fit_transform", None)      # nothing is learned anew where it is asked
    good, bad = scorer([praise, blame])
    assert good > bad
    assert learned_from.endswith("judgements that the reward model was not given")
    assert 0 < int(learned_from.split()[0]) < 120


def test_without_any_judgement_left_there_is_no_gold_reward(tmp_path):
    write_tables(tmp_path)
    with pytest.raises(InputError, match=r"evaluate\.gold\.fraction: no rating or preference is left"):
        gold_scorer(tmp_path, Gold(), [config()], {}, ())
