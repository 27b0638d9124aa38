"""A judge that is a model: what counts is the answer, not its place."""

import json

import pytest
import torch

from genai_core.config.pipeline import load_pipeline
from genai_core.config.release import EvaluateConfig, Judge
from genai_core.config.tasks import Task
from genai_core.data.instruction.examples import user_asks
from genai_core.errors import InputError
from genai_core.evaluation import judge as judging
from genai_core.evaluation.judge import QUESTION, add_win_rates, judge_pairs
from genai_core.evaluation.language_model import Evaluated
from genai_core.evaluation.outside import outside_digests, require_outside
from genai_core.evaluation.tasks import Subject
from genai_core.export.model_directory import save_model
from tests.genai_core.tables import chat, write_tables
from tests.genai_core.test_task_figures import log_prob

PROMPTS = [user_asks(f"Question {number}?") for number in range(20)]
ONES = [f"Yes, {'very ' * (number % 4)}much so." for number in range(20)]
OTHERS = [f"No, {'never ' * (number % 3)}at all." for number in range(20)]


@pytest.fixture(params=[True, False], ids=["chats", "base"])
def subject(request, tiny_model, tokenizer) -> Subject:
    return Subject(tiny_model, tokenizer, chats=request.param)


def test_a_verdict_does_not_depend_on_which_answer_is_named_first(subject):
    there, back = judge_pairs(subject, PROMPTS, ONES, OTHERS), judge_pairs(subject, PROMPTS, OTHERS, ONES)
    assert there.scores == [1 - score for score in back.scores]
    assert there.consistent == back.consistent == sum(score != 0.5 for score in there.scores) / 20


def test_a_judge_that_prefers_a_place_finds_ties_alone(subject, monkeypatch):
    monkeypatch.setattr(judging, "_prefers_first", lambda _, pairs: [True] * len(pairs))
    judged = judge_pairs(subject, PROMPTS, ONES, OTHERS)
    assert set(judged.scores) == {0.5} and judged.consistent == 0


def test_a_judge_that_reads_the_answers_is_followed(subject, monkeypatch):
    monkeypatch.setattr(judging, "_prefers_first", lambda _, pairs: [len(a) > len(b) for _, a, b in pairs])
    judged = judge_pairs(subject, PROMPTS, ONES, OTHERS)
    decided = [(len(one), len(other), score) for one, other, score in zip(ONES, OTHERS, judged.scores, strict=True)
               if len(one) != len(other)]
    assert all(score == float(one > other) for one, other, score in decided)


def test_equal_answers_are_ties_that_nobody_is_asked_about(subject, monkeypatch):
    monkeypatch.setattr(judging, "_prefers_first", lambda _, pairs: [len(pairs) == 1] * len(pairs))
    judged = judge_pairs(subject, PROMPTS, [*ONES[:1], *OTHERS[1:]], OTHERS)
    assert judged.scores[1:] == [0.5] * 19


def test_the_label_is_the_likelier_one_after_the_question(tiny_model, tokenizer):
    subject = Subject(tiny_model, tokenizer, chats=False)
    text = QUESTION.format(prompt="Why?", first="So.", second="No.")
    ids = tokenizer.encode(f"User: {text}\nAssistant:", add_special_tokens=False).ids
    labels = [tokenizer.encode(f" {label}", add_special_tokens=False).ids for label in "AB"]
    likely = [log_prob(tiny_model, ids, label) for label in labels]
    assert judging._prefers_first(subject, [(user_asks("Why?"), "So.", "No.")]) == [likely[0] > likely[1]]


@pytest.fixture
def models(tiny_model, tokenizer_dir, tmp_path):
    made = {}
    for number, name in enumerate(("base", "instruct", "rlhf")):
        torch.manual_seed(number)
        for parameter in tiny_model.parameters():
            parameter.data += 0.02 * torch.randn_like(parameter)
        made[name] = tmp_path / name
        made[name].mkdir()
        save_model(tiny_model, tokenizer_dir, made[name])
    return made


TASKS = {"dialogue": Task(content="chats", answer_tokens=6)}


def test_each_model_is_held_against_the_one_it_was_made_from(models, tmp_path, recorder):
    cleaned = write_tables(tmp_path / "cleaned", chats=[chat(f"Question {number}?", "So.", split="test")
                                                        for number in range(10)])
    config = EvaluateConfig(judge=Judge(model="rlhf", tasks=("dialogue",), questions=8))
    table = {name: Evaluated() for name in models}
    add_win_rates(table, config, models, {name: name != "base" for name in models}, TASKS, cleaned, tmp_path,
                  torch.device("cpu"), recorder)
    assert "win_rate" not in table["base"].figures
    for name in ("instruct", "rlhf"):
        found = table[name]
        assert found.intervals["win_rate"][0] <= found.figures["win_rate"] <= found.intervals["win_rate"][1]
        assert 0 <= found.figures["judge_consistency"] <= 1
        assert [row["value"] for row in found.answers] == found.outcomes["win_rate"][0] and len(found.answers) == 8
    assert [note.split(":")[0] for note in recorder.notes[:2]] == ["instruct against base", "rlhf against instruct"]
    with pytest.raises(InputError, match=r"evaluate.judge.tasks: dialogue has no held-out question"):
        add_win_rates(table, config, models, {}, TASKS, write_tables(tmp_path / "none"), tmp_path, torch.device("cpu"),
                      recorder)


def test_the_bytes_of_the_judge_decide_and_one_that_is_not_there_is_told(models, tmp_path):
    config = EvaluateConfig(judge=Judge(model="rlhf"))
    before = outside_digests(config, tmp_path)
    assert outside_digests(config, tmp_path) == before and outside_digests(EvaluateConfig(), tmp_path) == {}
    (models["rlhf"] / "README.md").write_text("a card")
    assert outside_digests(config, tmp_path) == before, "words about it change nothing"
    settings = json.loads((models["rlhf"] / "config.json").read_text())
    (models["rlhf"] / "config.json").write_text(json.dumps({**settings, "rope_theta": 1.0}))
    assert outside_digests(config, tmp_path) != before
    with pytest.raises(InputError, match=r"evaluate.judge.model: nowhere: there is no such model directory"):
        outside_digests(EvaluateConfig(judge=Judge(model="nowhere")), tmp_path)


def test_a_folder_that_is_no_language_model_is_told_before_the_run(models, tmp_path):
    def refused(message):
        with pytest.raises(InputError, match=f"evaluate.judge.model: .*{message}"):
            require_outside(EvaluateConfig(judge=Judge(model="rlhf")), tmp_path)

    directory = models["rlhf"]
    settings = json.loads((directory / "config.json").read_text())
    (directory / "tokenizer.json").rename(directory / "tokenizer")
    refused("tokenizer.json: not a readable tokenizer")
    (directory / "config.json").write_text(json.dumps({**settings, "hidden_size": None, "kind": "reward_model"}))
    refused("a model of kind reward_model compares no answers")
    (directory / "config.json").unlink()
    refused("config.json is missing")


def test_a_judge_asks_the_questions_of_rlhf_where_it_is_not_told_which():
    assert load_pipeline("smoke", {"evaluate.judge.model": "m"}).evaluate.judge.tasks == ("continuation",)
    told = load_pipeline("smoke", {"evaluate.judge.model": "m", "evaluate.judge.tasks": ["dialogue"]})
    assert told.evaluate.judge.tasks == ("dialogue",)
    with pytest.raises(InputError, match=r"evaluate.judge.tasks: there is no task 'dialog'"):
        load_pipeline("smoke", {"evaluate.judge.model": "m", "evaluate.judge.tasks": ["dialog"]})
