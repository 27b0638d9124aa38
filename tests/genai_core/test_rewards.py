"""Rewards: verifiable ones say what their names say, functions are installed ones, and a bad one is one line."""

import json
import os
from pathlib import Path

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from genai_core.config.pipeline import load_pipeline
from genai_core.config.release import Gold
from genai_core.config.rewards import AnyReward, FunctionReward, UnitTestsReward
from genai_core.config.tasks import Lesson, Mixture
from genai_core.config.training import InstructConfig, RlhfConfig
from genai_core.context import Context
from genai_core.data.instruction.examples import Example, user_asks
from genai_core.errors import InputError, RewardFailed
from genai_core.export.model_directory import save_model
from genai_core.inference.reward import OpenedRewardModel
from genai_core.models.reward import RewardModel
from genai_core.rewards.answers import last_number
from genai_core.rewards.apart import Apart
from genai_core.rewards.functions import check_functions, function_digests
from genai_core.rewards.reward import Rewards, VerifiableReward, check_prompts, open_rewards
from genai_core.rewards.unit_tests import ALLOW, code_of
from genai_core.rewards.verifiable import Submissions
from genai_core.stages import rlhf
from genai_core.training import checkpoints
from genai_core.training.loop import train
from tests.conftest import tiny
from tests.genai_core import trainings
from tests.genai_core.tables import chat, write_tables


def question(text: str, *answers: str) -> Example:
    return Example(user_asks(text), answers[0] if answers else "", answers, text)


def declared(**fields) -> AnyReward:
    return TypeAdapter(AnyReward).validate_python(fields)


def scores(right: str, *answers: str, **fields) -> list[float]:
    with open_rewards({"mine": declared(**fields)}, None) as rewards:
        return rewards.score([question("?", right)] * len(answers), answers).total.tolist()


@pytest.mark.parametrize(("right", "same", "others"), [
    ("5", ("5", " 5.", "**5**", "+5", "5.0"), ("-5", "−5", "5.5", "55", "5 apples", "")),
    ("15", ("15.0",), ("1.5", "1 5", "1/5", "-15")),
    ("-0.5", ("-.5", "−0.50"), ("0.5", "-5", "05")),
    ("1,200", ("1200", "1,200.00"), ("1.2", "1200 or 12")),
    ("x > y", ("x>y", "X > y."), ("x < y", "x >= y", "x y")),
    ("a + b", ("a+b",), ("a - b", "ab")),
    ("C++", ("c++",), ("C", "C#")),
    ("5-3", ("5 - 3", "5−3"), ("5/3", "5*3", "5 3", "5, -3")),
    ("x*y", ("x * y", "**x*y**"), ("x/y", "x-y", "x y", "x**y")),
    ("sin(x)/cos(x)", ("sin(x) / cos(x)",), ("sin(x)-cos(x)", "sin(x) cos(x)")),
    ("2 * -3", ("2*-3",), ("2 -3", "2 * 3")),
    ("y = -x", ("y=-x",), ("y = x", "-yx", "y != -x")),
    ("50%", ("50 %", "50.0%"), ("50", "5%")),
    ("a = b", ("a=b", "a == b"), ("ab", "a != b")),
    ("28", ("= 28", "- 28", "* 28"), ("-28",)),
    ("1e5", ("100000", "1E+5"), ("1", "1e-5")),
    ("1e5000", ("1E5000",), ("1", "1e5001")),
    ("the answer", ("the **answer**", "the - answer"), ("answer",)),
    ("AC/DC", ("acdc", "AC-DC"), ("AC",)),
    ("Apollo 11", ("apollo-11", "Apollo 11!"), ("Apollo 1", "Apollo 1 1"))])
def test_signs_and_points_tell_exact_answers_apart_and_punctuation_does_not(right, same, others):
    assert scores(right, *same, *others, kind="exact_answer") == [1] * len(same) + [0] * len(others)


def test_an_exact_answer_has_the_words_of_a_right_one():
    assert scores("Den Haag", "den haag!", "The Hague", "", kind="exact_answer") == [1, 0, 0]
    assert scores("+", "+", "-", "", kind="exact_answer") == [1, 0, 0], "what has no letters is compared as it stands"


@pytest.mark.parametrize(("text", "number"), [
    ("12 - 5 = 7", "7"), ("= -28", "-28"), ("−3", "-3"), ("5-7", "7"), ("1,234.50 euros", "1234.50"), ("1, 2", "2"),
    ("#### 72", "72"), ("7.", "7"), ("007", "7"), ("x7", None), (".5", "0.5"), ("it is -.5.", "-0.5"),
    ("1,2345", "2345"), ("1e5", "100000"), ("-2.5E-3 m", "-0.0025"), ("1e5000", None), ("12e99999", None), ("5em", "5"),
    ("none", None), ("", None)])
def test_the_last_number_of_a_text_is_found(text, number):
    found = last_number(text)
    assert found == (None if number is None else type(found)(number))


def test_a_number_is_right_where_it_is_equal_and_not_where_it_is_written_the_same():
    assert scores("1200", "that is 1,200.0", "1200 or 12", "-1200", "", kind="number") == [1, 0, 0, 0]


def test_a_pattern_is_looked_for_in_the_answer():
    assert scores("", "so: <b>7</b>", "7", kind="pattern", pattern=r"<b>\d</b>") == [1, 0]


def test_an_answer_is_json_of_the_schema_or_it_is_not():
    schema = {"type": "object", "properties": {"age": {"type": "integer", "minimum": 0}}, "required": ["age"]}
    answers = ['{"age": 3}', '{"age": -3}', "{}", '{"age": 3', "NaN", "[" * 100_000]
    assert scores("", *answers, kind="json_schema", json_schema=schema) == [1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(("schema", "answer"), [
    ({"type": "array", "items": {"$ref": "#"}}, "[" * 250 + "]" * 250), ({"multipleOf": 0.01}, "1e999"),
    ({"multipleOf": 0.01}, "1" * 400)])
def test_an_answer_that_cannot_be_checked_is_not_accepted_and_ends_nothing(schema, answer):
    assert scores("", answer, "[]", kind="json_schema", json_schema=schema) == [0, 1]


@pytest.mark.parametrize("reference", [{"$ref": "#/$defs/age"}, {"$dynamicRef": "#age"}, {"$ref": "#/further/age"},
                                       {"$ref": "https://json-schema.org/draft/2020-12/schema"}])
def test_a_schema_may_refer_to_its_own_parts_and_to_the_schema_of_schemas(reference):
    parts = {"$defs": {"age": {"$dynamicAnchor": "age", "type": "object"}}, "further": {"age": {"type": "object"}}}
    assert scores("", "{}", "3", kind="json_schema", json_schema=parts | reference) == [1, 0]


def test_code_is_right_where_it_passes_the_tests_of_its_problem(monkeypatch):
    monkeypatch.setenv(ALLOW, "1")
    right, wrong = "def add(a, b):\n    return a + b", "def add(a, b):\n    return a - b"
    tests = "assert add(1, 2) == 3"
    fenced = f"Here it is:\n```python\n{right}\n```\nIt adds."
    assert scores(tests, right, wrong, fenced, "raise SystemExit", kind="unit_tests") == [1, 0, 1, 0]


@pytest.mark.parametrize("opening", ["```\n", "```python\n", "```python \n", "``` python\n", "```python\r\n",
                                     '```python title="a.py"\n', "```{.python}\n"])
def test_code_is_taken_out_of_its_fence(opening):
    assert code_of(f"So:\n{opening}x = 1\n```\nand ```y``` too") == "x = 1\n"
    assert code_of("no fence") == "no fence"


def test_code_runs_only_where_the_machine_was_told_so(monkeypatch):
    monkeypatch.delenv(ALLOW, raising=False)
    with pytest.raises(InputError, match=rf"rlhf\.rewards\.code: unit_tests runs code .* set {ALLOW}=1"):
        open_rewards({"code": UnitTestsReward(kind="unit_tests")}, None)


PACKAGE = '''
import os, time

def length(completions, **others):
    return [len(completion[0]["content"]) for completion in completions]

def all_that_there_is(prompts, completions, answers):
    return [float(prompt[-1]["content"] == right[0]) for prompt, right in zip(prompts, answers)]

def prints(completions, **others):
    print("this is no answer")
    return [1.0] * len(completions)

def raises(**others):
    raise KeyError("no such\\ncolumn")

def few(**others):
    return [1.0]

def words(completions, **others):
    return ["good"] * len(completions)

def not_a_number(completions, **others):
    return [1.0] * (len(completions) - 1) + [float("nan")]

def ends(**others):
    os._exit(3)

def sleeps(**others):
    time.sleep(600)
'''
NAMES = ("length", "all_that_there_is", "prints", "raises", "few", "words", "not_a_number", "ends", "sleeps")


def install(folder: Path, name: str = "scorers", version: str = "1.0", source: str = PACKAGE) -> None:
    """What pip leaves of a package of one module that offers reward functions."""
    (folder / f"{name}.py").write_text(source)
    metadata = folder / f"{name}-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (metadata / "entry_points.txt").write_text(
        "[genai_core.rewards]\n" + "".join(f"{function} = {name}:{function}\n" for function in NAMES))


@pytest.fixture
def installed(tmp_path, monkeypatch):
    folder = tmp_path / "site"
    folder.mkdir()
    install(folder)
    monkeypatch.syspath_prepend(str(folder))
    return folder


def test_a_function_is_called_as_trl_calls_it(installed):
    assert scores("?", "four", "", kind="function", function="length") == [4, 0]
    assert scores("?", "four", kind="function", function="all_that_there_is") == [1]
    assert scores("?", "four", kind="function", function="prints") == [1]


def test_rewards_are_added_up_by_their_weights_and_each_is_told(installed):
    with open_rewards({"right": declared(kind="number"), "short": declared(kind="function", function="length",
                                                                           weight=-0.1)}, None) as rewards:
        total, each = rewards.score([question("?", "7")] * 2, ["it is 7", "8"])
    assert each["right"].tolist() == [1, 0] and each["short"].tolist() == [7, 1]
    assert total.tolist() == pytest.approx([0.3, -0.1])


def test_rewards_whose_sum_is_no_number_are_told():
    class Great(FailsAfter):
        def score(self, prompts, answers):
            return torch.tensor([1e38] * len(answers))

    with Rewards({"great": (10.0, Great(1))}) as rewards, \
            pytest.raises(RewardFailed, match=r"rlhf\.rewards: the weighted sum .* up to 1e\+38 of great; scale"):
        rewards.score([question("?")], ["a"])


@pytest.mark.parametrize(("function", "message"), [
    ("raises", "it raised KeyError: 'no such.ncolumn'"), ("few", "1 values for 2 answers"),
    ("words", r"it returned \['good', 'good'\], and not a number"), ("not_a_number", "nan for the answer 'b'"),
    ("ends", "its process ended with status 3")])
def test_a_function_that_gives_no_numbers_is_one_line_that_names_the_reward(installed, function, message):
    with pytest.raises(RewardFailed, match=rf"^rlhf\.rewards\.mine: {message}.*$") as failure:
        scores("?", "a", "b", kind="function", function=function)
    assert "\n" not in str(failure.value)


def test_a_failure_shows_the_beginning_of_a_long_answer_alone(installed):
    with pytest.raises(RewardFailed, match=r"nan for the answer 'b{100} …'; a reward") as failure:
        scores("?", "a", "b" * 5000, kind="function", function="not_a_number")
    assert len(str(failure.value)) < 300


@pytest.mark.parametrize("reward", [{"kind": "function", "function": "sleeps"},
                                    {"kind": "pattern", "pattern": r"(a+)+b"}])
def test_what_takes_too_long_is_ended(installed, reward):
    apart = Apart(declared(**reward), seconds=2.0)
    with pytest.raises(RewardFailed, match="more than 2 seconds for 1 answers"):
        apart(Submissions([user_asks("?")], ["a" * 64], [("",)]))
    apart.close()
    assert not children(), "a process is left behind"


def children() -> list[str]:
    own = f"/proc/{os.getpid()}/task"
    found = [child for task in Path(own).glob("*/children") for child in task.read_text().split()] \
        if Path(own).is_dir() else []
    return [child for child in found if "genai_core.mapping" in Path(f"/proc/{child}/cmdline").read_text()]


def test_only_what_is_installed_can_be_named(installed, monkeypatch):
    with pytest.raises(ValidationError, match=r"no installed package offers the function 'os\.system'.* are .*few"):
        FunctionReward(kind="function", function="os.system")
    install(installed, "others")
    monkeypatch.syspath_prepend(str(installed))
    with pytest.raises(ValidationError, match=r"'length' is offered by more than one package \(.*others"):
        FunctionReward(kind="function", function="length")


def test_a_function_that_cannot_be_imported_or_called_is_told_before_anything_is_trained(installed):
    def check(source: str) -> None:
        (installed / "scorers.py").write_text(source)
        check_functions({"right": declared(kind="number"), "mine": FunctionReward(kind="function", function="length")})

    check("def length(completions, **others): raise AssertionError")
    check("class Length:\n    def __call__(self, **others): pass\nlength = Length()")
    for source, message in (
            ("import no_such_module", "importing it raised ModuleNotFoundError: No module named 'no_such_module'"),
            ("import os; os._exit(3)", "importing it ended its process with status 3"),
            ("def size(**others): pass", "importing it raised AttributeError"), ("length = 3", "3 is not a callable"),
            ("def length(completions): pass", r"it cannot be called with .* unexpected keyword argument 'prompts'"),
            ("def length(completion_ids, **others): pass", r"it cannot be called with .* argument: 'completion_ids'"),
            ("async def length(**others): pass", "it is async")):
        with pytest.raises(InputError, match=rf"^rlhf\.rewards\.mine: the function 'length' cannot .*: .*{message}"):
            check(source)


def test_the_key_has_version_and_source_of_a_function_and_of_nothing_else(tmp_path, monkeypatch):
    def digests(version: str, source: str) -> dict[str, str]:
        folder = tmp_path / f"{version}-{len(source)}"
        folder.mkdir()
        install(folder, version=version, source=source)
        monkeypatch.syspath_prepend(str(folder))
        config = rlhf_config(rewards={"mine": {"kind": "function", "function": "length"}, "right": {"kind": "number"}})
        found = function_digests(config, tmp_path)
        monkeypatch.undo()
        return found

    first, newer, changed = digests("1.0", PACKAGE), digests("1.1", PACKAGE), digests("1.0", PACKAGE + "\nx = 1\n")
    assert list(first) == ["rlhf.rewards.mine, scorers:length of scorers 1.0"]
    assert list(newer) == ["rlhf.rewards.mine, scorers:length of scorers 1.1"]
    assert list(changed) == list(first) and changed != first
    assert function_digests(rlhf_config(), tmp_path) == {}


def rlhf_config(**fields) -> RlhfConfig:
    return RlhfConfig(**{"learning_rate": 1e-3, "batch_size": 8, "group_size": 4, "steps": 4, "completion_tokens": 6,
                         "replay_rows": 0, **fields})


@pytest.mark.parametrize(("overrides", "message"), [
    ({"rlhf.rewards.mine": {"kind": "pattern", "pattern": "("}}, r"rlhf\.rewards\.mine\.pattern: '\(' is no regular"),
    ({"rlhf.rewards.mine": {"kind": "json_schema", "json_schema": {"type": "nothing"}}},
     r"rlhf\.rewards\.mine\.json_schema: no JSON Schema: 'nothing' is not valid"),
    *(({"rlhf.rewards.mine": {"kind": "json_schema", "json_schema": schema}},
       rf"rlhf\.rewards\.mine\.json_schema: {message}") for schema, message in (
          ({"$ref": "http://x.org/a"}, r"\$ref: 'http://x\.org/a' is no part of the schema"),
          ({"properties": {"a": {"$ref": "#/nope"}}}, r"\$ref: '#/nope' is no part of the schema"),
          ({"$ref": "file:///etc/passwd"}, r"\$ref: 'file:///etc/passwd' is no part"),
          ({"$dynamicRef": "#nope"}, r"\$dynamicRef: '#nope' is no part"),
          ({"allOf": [{}], "items": {"$ref": "#/allOf"}}, r"\$ref: '#/allOf' is no schema"),
          ({"$ref": "#"}, "a part of the schema refers to itself without end"),
          ({"items": {"$ref": "#/$defs/a"}, "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
           "a part of the schema refers to itself without end"),
          ({"pattern": "a{99999999999}"}, "no JSON Schema: the repetition number is too large"))),
    *(({"rlhf.rewards.mine": {"kind": "pattern", "pattern": pattern}}, message) for pattern, message in (
        ("a{99999999999}", r"mine\.pattern: .* is no regular expression \(the repetition number is too large"),
        ("(" * 3000 + ")" * 3000, r"mine\.pattern: '\({100} …' is no regular expression \(maximum recursion"))),
    ({"rlhf.rewards.mine": {"kind": "numbr"}},
     r"rlhf\.rewards\.mine: kind 'numbr' is none of exact_answer, function, json_schema, number, pattern, rew"),
    ({"rlhf.rewards.number": {"weight": 2}}, r"rlhf\.rewards\.number: no reward is called so, and a new one needs"),
    ({"rlhf.rewards.number": {"kind": "number", "wait": 2}}, r"rlhf\.rewards\.number\.wait: no such field"),
    ({"rlhf.rewards": {}}, r"rlhf\.rewards: Dictionary should have at least 1 item"),
    ({"rlhf.rewards.mine": {"kind": "number"}}, r"rlhf\.tasks: continuation is of documents, and rlhf\.rewards\.mine "
                                               "compares an answer with that of its problem")])
def test_a_mistake_in_the_declaration_names_its_field(overrides, message):
    with pytest.raises(InputError, match=message):
        load_pipeline("laptop", overrides)


def test_a_problem_to_which_no_number_can_be_right_is_told_before_training():
    with pytest.raises(InputError, match=r"rlhf\.rewards\.right: the answer 'seven' to '3 \+ 4' has no number in it"):
        check_prompts({"right": declared(kind="number")}, [question("1 + 1", "2"), question("3 + 4", "seven")])


def test_the_default_is_the_score_of_the_reward_model_and_nothing_else(tokenizer):
    model = RewardModel.from_language_model(tiny())
    torch.nn.init.normal_(model.score.weight)
    opened = OpenedRewardModel(Path(), model.eval(), tokenizer, 64)
    prompts, answers = [question("What is a list?")] * 2, ["A sequence.", ""]
    with open_rewards(rlhf_config().rewards, opened) as rewards:
        found = rewards.score(prompts, answers)
    expected = opened.score([prompt.answered(answer) for prompt, answer in zip(prompts, answers, strict=True)])
    assert torch.allclose(found.total, expected, rtol=1e-5)      # the question is read once for both answers
    assert torch.equal(found.total, found.each["reward_model"])


class FailsAfter:
    """The length of an answer, until it was asked often enough."""

    def __init__(self, calls: int):
        self.left = calls

    def score(self, prompts, answers):
        self.left -= 1
        if self.left < 0:
            raise RewardFailed("more than 60 seconds for 8 answers")
        return torch.tensor([float(len(answer)) for answer in answers])

    def close(self):
        pass


def grpo(tokens, tokenizer, prose, rewards):
    model, objective, config = trainings.rlhf(tiny(), tokens, tokenizer, prose, steps=4)
    objective.rewards = rewards
    return model, objective, config


def test_what_was_trained_before_a_reward_failed_is_in_a_checkpoint_and_training_goes_on_from_it(
        tokens, tokenizer, prose, tmp_path):
    def context(name: str) -> Context:
        return Context(tmp_path / name, device="cpu", compile="off", checkpoint_seconds=3600)

    whole = grpo(tokens, tokenizer, prose, Rewards({"mine": (1.0, FailsAfter(1000))}))
    train(*whole, context("whole"))
    model, objective, config = grpo(tokens, tokenizer, prose, Rewards({"mine": (1.0, FailsAfter(2))}))
    with pytest.raises(RewardFailed, match=r"^rlhf\.rewards\.mine: more than 60 seconds"):
        train(model, objective, config, context("failed"))
    assert [step for step, _ in checkpoints._saved(tmp_path / "failed")] == [2]
    again = grpo(tokens, tokenizer, prose, Rewards({"mine": (1.0, FailsAfter(1000))}))
    train(*again, context("failed"))
    for ours, theirs in zip(again[0].parameters(), whole[0].parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_figures_in_which_a_reward_failed_are_taken_before_training_goes_on(tokens, tokenizer, prose, tmp_path):
    def failing(step: int) -> dict[str, float]:
        raise RewardFailed("more than 60 seconds for 8 answers")

    def context(name: str) -> Context:
        return Context(tmp_path / name, device="cpu", compile="off", checkpoint_seconds=3600)

    def training():
        return grpo(tokens, tokenizer, prose, Rewards({"mine": (1.0, FailsAfter(1000))}))

    whole = train(*training(), context("whole"))
    model, objective, config = training()
    objective.evaluate = failing
    with pytest.raises(RewardFailed):
        train(model, objective, config, context("failed"))
    resumed = train(*training(), context("failed"))
    assert json.dumps(resumed.curves, sort_keys=True) == json.dumps(whole.curves, sort_keys=True)


@pytest.mark.parametrize(("step", "saved"), [(3, []), (4, [4]), (5, [5])])
def test_what_a_batch_of_ppo_has_left_is_in_no_checkpoint_and_so_none_is_made_amid_it(step, saved, tokens, tokenizer,
                                                                                   prose, tmp_path):
    def failing(steps: int) -> dict[str, float]:
        raise RewardFailed("more than 60 seconds for 8 answers")

    model, objective, config = trainings.ppo(tiny(), tokens, tokenizer, prose, steps=5)
    objective.evaluate, objective.evaluation_steps = failing, frozenset({step})
    with pytest.raises(RewardFailed):
        train(model, objective, config, Context(tmp_path, device="cpu", compile="off", checkpoint_seconds=3600))
    assert [step for step, _ in checkpoints._saved(tmp_path)] == saved


def test_the_last_measurement_is_a_part_of_training_and_its_failure_leaves_a_checkpoint(
        tokenizer_dir, tmp_path, monkeypatch):
    """Of a stage that replays nothing, and so does not look at what instruct was trained on."""
    directory, cleaned, out = (tmp_path / name for name in ("instruct", "cleaned", "out"))
    for each in (directory, out):
        each.mkdir()
    save_model(tiny(), tokenizer_dir, directory)
    write_tables(cleaned, chats=[chat(f"Question {number}?", "So.", split=split) for split in ("train", "validation")
                                 for number in range(4)])
    fine_tuning = InstructConfig(learning_rate=1e-3, context_length=4096, batch_size=1, text_fraction=0)

    def run(calls: int, checkpoints_in: str, questions: Path = cleaned):
        rewards = Rewards({"mine": (1.0, FailsAfter(calls))})
        monkeypatch.setattr(rlhf, "open_rewards", lambda declared, model: rewards)
        mixture = Mixture(lessons={"dialogue": Lesson(content="chats")})
        config = rlhf_config(tasks=("dialogue",), rewards={"mine": {"kind": "pattern", "pattern": "e"}})
        return rlhf.run(config, instruct=directory, cleaned=questions, tokens=cleaned, questions=mixture,
                        mixture=mixture, fine_tuning=fine_tuning, gold=Gold(), judged=(), out_dir=out,
                        context=Context(tmp_path / checkpoints_in, device="cpu", checkpoint_seconds=3600))

    calls = 1 + 4 + 2      # the instruct model, four steps, a look in the middle and one at the end
    whole = run(calls, "whole")
    with pytest.raises(RewardFailed):
        run(calls - 1, "failed")
    assert [step for step, _ in checkpoints._saved(tmp_path / "failed")] == [4]
    again = run(2, "failed")
    assert again.measurements["resumed_from_step"] == 4 and again.metrics == whole.metrics
    alone = write_tables(tmp_path / "alone", chats=[chat("Question?", "So.", split=split)
                                                    for split in ("train", "validation")])
    with pytest.raises(InputError, match=r"rlhf\.tasks: dialogue: 1 questions in the validation split, and at least 2"):
        run(calls, "alone", alone)


def test_every_reward_has_a_curve_and_a_held_out_figure(tokens, tokenizer, prose, tmp_path):
    parts = {"length": (0.1, FailsAfter(1000)), "json": (1.0, VerifiableReward(declared(kind="pattern", pattern="{")))}
    with Rewards(parts) as rewards:
        trained = train(*grpo(tokens, tokenizer, prose, rewards), Context(tmp_path, device="cpu", compile="off"))
    assert {"reward", "reward/length", "reward/json", "held_out_reward/length", "held_out_reward/json"} \
        <= set(trained.curves)
    assert len(trained.curves["reward/length"]) == 4
