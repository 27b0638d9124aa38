"""The loop of docs/feedback.md: label answers, train the reward model on the labels, RLHF on it, compare."""

import json
import subprocess

import pytest

from tests.end_to_end.conftest import Home, copy_of, states

pytestmark = pytest.mark.slow


def label_by_rule(home: Home, *arguments: str) -> int:
    """A scripted labeller, who finds more words better: it reads questions as lines of JSON and presses keys."""
    command = home.command("label", *arguments, "--preset", "smoke", "--json")
    process = subprocess.Popen(command, env=home.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                               bufsize=1)
    assert process.stdin and process.stdout
    labels = 0
    for line in process.stdout:
        question = json.loads(line)
        first, second = (len(question[name].split()) for name in ("first", "second"))
        process.stdin.write("t\n" if first == second else "1\n" if first > second else "2\n")
        labels += 1
    assert process.wait() == 0
    return labels


def test_labels_teach_a_reward_model_that_rlhf_follows_and_the_answers_are_compared(finished, tmp_path):
    home = copy_of(finished, tmp_path / "home")
    sampled = ("--task", "dialogue", "--count", "60", "--tokens", "24", "--temperature", "1")
    labels = label_by_rule(home, "models:/genai-rlhf/1", *sampled, "--labeller", "rule")
    assert 30 < labels <= 60
    labels += label_by_rule(home, "models:/genai-rlhf/1", *sampled, "--count", "3", "--labeller", "rule")
    preferences = home.root / "feedback" / "preferences.jsonl"
    pairs = preferences.read_text().splitlines()
    assert len(pairs) > 20
    ties = [line for path in preferences.parent.glob("undecided.jsonl") for line in path.read_text().splitlines()]
    asked_about = {json.dumps(json.loads(line)["prompt"]) for line in [*pairs, *ties]}
    assert len(asked_about) == labels, "nothing is asked twice"

    ran = states(home.genai("run", "--preset", "smoke", "--also", "--preferences", str(preferences),
                            "--set", "evaluate.judge.model=models:/genai-instruct/1").stdout)
    assert ran["reward"] == ran["rlhf"] == ran["evaluate"] == "Completed"
    collected = max(home.artifacts("collect"), key=lambda path: path.stat().st_mtime)
    card = json.loads((collected / "data_card.json").read_text())
    assert card["preferences"]["rows"] == len(pairs), "each choice is a pair, and ties are none"

    compared = json.loads(home.genai("compare", "models:/genai-rlhf/1", "models:/genai-rlhf/2", "--json").stdout)
    lines = {line["figure"]: line for line in compared["lines"]}
    judged = home.genai("samples", "models:/genai-rlhf/2", "continuation", "--json")
    assert {"win_rate", "gold_reward"} <= {name for row in json.loads(judged.stdout) for name in row["values"]}
    assert lines["gold_reward"]["low"] <= lines["gold_reward"]["difference"] <= lines["gold_reward"]["high"]

    both = ("models:/genai-rlhf/1", "models:/genai-rlhf/2", *sampled, "--held-out")
    asked = label_by_rule(home, *both, "--labeller", "rule")
    assert asked > 10 and label_by_rule(home, *both, "--labeller", "second") == asked
    shown = json.loads(home.genai("label", "--agreement", "--json").stdout)
    (won,) = shown["wins"]
    assert (won["first"], won["second"]) == ("genai-rlhf/1", "genai-rlhf/2")
    assert won["low"] <= won["win_rate"] <= won["high"]
    (agreed,) = shown["agreement"]
    assert agreed["agreement"] == agreed["kappa"] == 1.0, "the same rule twice, whatever order each has seen"


def test_every_answer_of_an_evaluation_can_be_looked_at(finished):
    def listed(*arguments: str) -> list[dict]:
        return json.loads(finished.genai("samples", "models:/genai-rlhf/1", *arguments, "--json").stdout)

    rows = listed("sentiment")
    assert len(rows) == 40 and all(row["right"] == (row["answered"] == row["expected"]) for row in rows)
    wrong = listed("sentiment", "--wrong")
    assert [row["asked"] for row in wrong] == [row["asked"] for row in rows if not row["right"]]
    beside = listed("sentiment", "--against", "models:/genai-instruct/1")
    assert [row["asked"] for row in beside] == [row["asked"] for row in rows]
    assert all(row["other_answered"] for row in beside)
    translated = listed("translation")
    assert len(translated) == 20 and translated[0]["right"] is None and translated[0]["values"]["chrf"] >= 0
    assert listed("dialogue")[0]["values"]["bits_per_byte"] > 0
    shown = finished.genai("samples", "models:/genai-rlhf/1", "sentiment", "--count", "2").stdout
    assert "2 of 40" in shown and ("right" in shown or "wrong" in shown)
    told = finished.genai("samples", "models:/genai-rlhf/1", "translation", "--wrong", fails=True).stderr
    assert "by which none is right or wrong" in told and "Traceback" not in told
    assert "was not asked such a task; there are" in finished.genai("samples", "models:/genai-rlhf/1", "sentimnt",
                                                                    fails=True).stderr
