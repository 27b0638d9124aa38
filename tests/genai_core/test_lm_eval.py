"""EleutherAI's lm-evaluation-harness reads our directories as they are, and its figures of a local task are ours."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from genai_core.config.release import EvaluateConfig, LmEval
from genai_core.config.tasks import Task
from genai_core.data.instruction.examples import Example, user_asks
from genai_core.errors import InputError
from genai_core.evaluation.harness import model as harness
from genai_core.evaluation.harness.figures import add_harness_figures
from genai_core.evaluation.language_model import Evaluated
from genai_core.evaluation.outside import outside_digests, require_outside
from genai_core.evaluation.tasks import AskedTask, Subject, ask
from genai_core.export.model_directory import load_model, save_model
from genai_core.inference.generate import generate
from genai_core.inference.likelihood import answer_log_probs
from tests.conftest import tiny

lm_eval = pytest.importorskip("lm_eval")

CHOICES = ("good", "very bad indeed", "so-so, as such films are")
ANSWERS = {f"{'so ' * (number % 4)}which of these is number {number}?": CHOICES[number % 3] for number in range(12)}
MULTIPLE_CHOICE = """task: films
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/films.jsonl}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
target_delimiter: "{delimiter}"
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""
TEXT = """task: pages
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/pages.jsonl}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list: [{{metric: bits_per_byte}}]
"""


@pytest.fixture(autouse=True)
def cache(folder, monkeypatch):
    """What `datasets` reads lies beside the tests."""
    from datasets import config

    monkeypatch.setattr(config, "HF_DATASETS_CACHE", folder / "cache")


@pytest.fixture(scope="module")
def pages(prose) -> list[str]:
    return [text[:150] for text in prose[:6]]


@pytest.fixture(scope="module")
def folder(pages, tokenizer_dir, tmp_path_factory) -> Path:
    """A model directory, and the tasks of the harness with their data beside it."""
    folder = tmp_path_factory.mktemp("harness")
    (folder / "model").mkdir()
    save_model(tiny(), tokenizer_dir, folder / "model")
    rows = [{"question": question, "choices": CHOICES, "answer": CHOICES.index(answer)}
            for question, answer in ANSWERS.items()]
    for name, table in (("films", rows), ("pages", [{"text": text} for text in pages])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    (folder / "pages.yaml").write_text(TEXT.format(folder=folder))
    return folder


def evaluated(folder: Path, task: str, model: dict[str, Any] | None = None, **options: Any) -> Any:
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(folder), include_defaults=False)
    arguments = {"pretrained": str(folder / "model"), "dtype": "float32", "device": "cpu", **(model or {})}
    return lm_eval.simple_evaluate(model="hf", model_args=arguments, tasks=[task], task_manager=manager,
                                   bootstrap_iters=0, log_samples=True, **options)


@pytest.mark.parametrize("chats", [False, True])
def test_accuracy_by_likelihood_is_that_of_the_harness(folder, tokenizer, chats):
    """Each log-probability, and the accuracies that follow from them: acc_norm is our multiple_choice (of ASCII)."""
    delimiter = "" if chats else " "
    (folder / "films.yaml").write_text(MULTIPLE_CHOICE.format(folder=folder, delimiter=delimiter))
    theirs = evaluated(folder, "films", apply_chat_template=chats)
    subject = Subject(load_model(folder / "model", torch.device("cpu")), tokenizer, chats)
    task = Task(content="problems", plain_prompt="{prompt}")
    examples = [Example(user_asks(question), answer, (answer,), question, choices=CHOICES)
                for question, answer in ANSWERS.items()]
    prompts = subject.prompts(task, examples, 100)
    answers = [subject.encode_answer(choice) for choice in CHOICES]
    if chats:      # it counts white space at the end of a prompt to the answer: here the line's end after "assistant"
        (line_end,) = {prompt.pop() for prompt in prompts}
        answers = [[line_end, *answer] for answer in answers]
    ours = answer_log_probs(subject.model, [prompt for prompt in prompts for _ in answers], answers * len(prompts))
    logged = sorted(theirs["samples"]["films"], key=lambda sample: sample["doc_id"])
    given = [float(answer[0][0]) for sample in logged for answer in sample["resps"]]
    assert given == pytest.approx(ours.tolist(), abs=1e-3)

    likeliest = [CHOICES[int(scores.argmax())] for scores in ours.view(-1, len(CHOICES))]
    right = [answer == known for answer, known in zip(likeliest, ANSWERS.values(), strict=True)]
    assert theirs["results"]["films"]["acc,none"] == pytest.approx(sum(right) / len(right))
    if not chats:
        labelled = AskedTask("films", Task(content="labelled", plain_prompt="{text}"), examples, CHOICES)
        assert theirs["results"]["films"]["acc,none"] == pytest.approx(ask(subject, labelled)["accuracy"].figure)
        found = ask(subject, AskedTask("films", task, examples))["multiple_choice"]
        assert theirs["results"]["films"]["acc_norm,none"] == pytest.approx(found.figure)


def test_bits_per_byte_of_text_are_those_of_the_harness(folder, pages, tokenizer):
    """Where the harness is told what a document begins after; by itself it takes the end of a turn."""
    start = tokenizer.token_to_id("<|endoftext|>")
    theirs = evaluated(folder, "pages", {"prefix_token_id": start})["results"]["pages"]["bits_per_byte,none"]
    model = load_model(folder / "model", torch.device("cpu"))
    encoded = [tokenizer.encode(text, add_special_tokens=False).ids for text in pages]
    nats = -answer_log_probs(model, [[start]] * len(pages), encoded).sum().item()
    assert theirs == pytest.approx(nats / math.log(2) / sum(len(text.encode()) for text in pages), rel=1e-4)


GENERATED = """task: told
dataset_path: json
dataset_kwargs: {data_files: {test: films.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{choices[answer]}}"
generation_kwargs: {until: ["so", "\\n"], max_gen_toks: 12}
metric_list: [{metric: exact_match}]
"""


@pytest.fixture(scope="module")
def named(folder, tmp_path_factory) -> Path:
    """A workspace with a folder of tasks whose data lies beside them."""
    root = tmp_path_factory.mktemp("workspace")
    tasks = root / "tasks"
    tasks.mkdir()
    for name in ("films.jsonl", "pages.jsonl"):
        (tasks / name).write_bytes((folder / name).read_bytes())
    films = MULTIPLE_CHOICE.format(folder=folder, delimiter=" ")
    (tasks / "films.yaml").write_text(films.replace(f"{folder}/", ""))
    (tasks / "pages.yaml").write_text(TEXT.format(folder=folder).replace(f"{folder}/", ""))
    (tasks / "told.yaml").write_text(GENERATED)
    return root


def config(*tasks: str, **more: Any) -> EvaluateConfig:
    return EvaluateConfig(lm_eval=LmEval(tasks=tasks, folder="tasks", **more))


def test_its_tasks_in_our_table_have_the_figures_that_it_gives_our_directory(folder, named, tokenizer):
    subject = Subject(load_model(folder / "model", torch.device("cpu")), tokenizer, chats=False)
    result = Evaluated()
    add_harness_figures(result, config("films", "pages", "told"), subject, named)
    (folder / "films.yaml").write_text(MULTIPLE_CHOICE.format(folder=folder, delimiter=" "))
    theirs = evaluated(folder, "films")["results"]["films"]
    assert result.figures["lm_eval/films/acc"] == pytest.approx(theirs["acc,none"])
    assert result.figures["lm_eval/films/acc_norm"] == pytest.approx(theirs["acc_norm,none"])
    start = tokenizer.token_to_id("<|endoftext|>")
    theirs = evaluated(folder, "pages", {"prefix_token_id": start})["results"]["pages"]["bits_per_byte,none"]
    assert result.figures["lm_eval/pages/bits_per_byte"] == pytest.approx(theirs, rel=1e-4)
    for figure, (low, high) in result.intervals.items():
        assert low <= result.figures[figure] <= high, figure
    for name in ("lm_eval/films", "lm_eval/films, acc_norm"):
        chosen = [row for row in result.answers if row["task"] == name]
        assert [row["expected"] for row in chosen] == list(ANSWERS.values())
        assert [row["value"] for row in chosen] == [float(row["answered"] == row["expected"]) for row in chosen]
    answered = [row for row in result.answers if row["task"] == "lm_eval/told"]
    assert len(answered) == 12 and not any("so" in str(row["answered"]) for row in answered), "it ends before a stop"


def test_each_filter_has_figures_and_answers_of_its_own(named, tokenizer, folder):
    """As gsm8k has them: one that finds nothing and says so, and one that takes the answer as it is."""
    filters = """filter_list:
  - {name: strict, filter: [{function: regex, regex_pattern: "no such number: ([0-9]+)"}, {function: take_first}]}
  - {name: whole, filter: [{function: take_first}]}
"""
    text = GENERATED.replace("task: told", "task: filtered").replace("{{choices[answer]}}", "[invalid]")
    (named / "tasks" / "filtered.yaml").write_text(text + filters)
    subject = Subject(load_model(folder / "model", torch.device("cpu")), tokenizer, chats=False)
    result = Evaluated()
    add_harness_figures(result, config("filtered"), subject, named)
    for kind, value in (("strict", 1.0), ("whole", 0.0)):
        figure = f"lm_eval/filtered/exact_match/{kind}"
        assert result.figures[figure] == value and result.outcomes[figure] == [[value] * 12, [1.0] * 12]
        assert 0 <= result.intervals[figure][0] <= value <= result.intervals[figure][1] <= 1
        rows = [row for row in result.answers if row["task"] == f"lm_eval/filtered, {kind}"]
        assert len(rows) == 12
        assert {row["answered"] == "[invalid]" for row in rows} == {value == 1.0}


def test_answers_are_made_together_and_end_at_a_stop_of_one_token(folder, tokenizer, monkeypatch):
    subject = Subject(load_model(folder / "model", torch.device("cpu")), tokenizer, chats=False)
    written = []

    def recorded(*args: Any, **named: Any) -> Any:
        written.append(generate(*args, **named))
        return written[-1]

    monkeypatch.setattr(harness, "generate", recorded)
    free = {"max_gen_toks": 12}
    whole = [harness.answers(subject, [(question, free)])[0] for question in ANSWERS]
    assert len(written) == len(ANSWERS)
    stop = next(text for token in written[0].unpadded()[0][2:] if (text := tokenizer.decode([token])).strip())
    stopped = {**free, "until": [stop, "of several tokens"]}
    written.clear()
    both = harness.answers(subject, [(question, options) for question in ANSWERS for options in (free, stopped)])
    assert len(written) == 2, "one for the options that are alike"
    assert both[::2] == whole and both[1::2] == [text.split(stop)[0] for text in whole]
    assert len(written[1].unpadded()[0]) < len(written[0].unpadded()[0]), "it stops where the stop is written"


@pytest.mark.parametrize(("old", "new", "said"), [
    ("metric: exact_match", "metric: nonsense", "'nonsense' is no metric"),
    ("{{question}}", "{{quesion}}", "UndefinedError: 'quesion' is undefined"),
    ("{{question}}", "{{question", "TemplateSyntaxError"),
    ("test_split: test", "test_split: text", "KeyError: 'text'"),
    ("output_type: generate_until", "output_type: generate", "output_type 'generate'"),
    ("max_gen_toks: 12", "do_sample: true", "(do_sample) is not asked here"),
    ("max_gen_toks: 12", "max_gen_toks: many", "invalid literal for int"),
    ("metric: exact_match", "metric: acc", "cannot be asked"),
])
def test_a_task_that_cannot_be_asked_is_told_in_one_line_before_the_run(named, old, new, said):
    text = GENERATED.replace("task: told", "task: wrong").replace(old, new)
    assert new in text
    (named / "tasks" / "wrong.yaml").write_text(text)
    with pytest.raises(InputError, match=re.escape(said)) as error:
        require_outside(config("wrong"), named)
    assert str(error.value).startswith("evaluate.lm_eval.tasks: ") and "\n" not in str(error.value)


def test_a_task_lies_in_the_folder_whose_digest_is_the_key(named):
    text = GENERATED.replace("task: told", "task: ../out").replace("films.jsonl", "tasks/films.jsonl")
    (named / "out.yaml").write_text(text)
    with pytest.raises(InputError, match=re.escape("../out is no file of ")):
        outside_digests(config("../out"), named)


def test_what_the_tasks_read_is_part_of_the_key_and_what_cannot_be_asked_is_said_first(named):
    before = outside_digests(config("films"), named)
    assert set(before) == {"lm_eval"} and outside_digests(EvaluateConfig(), named) == {}
    rows = (named / "tasks" / "films.jsonl").read_text()
    (named / "tasks" / "films.jsonl").write_text(rows + rows)
    assert outside_digests(config("films"), named) != before
    (named / "tasks" / "films.jsonl").write_text(rows)
    assert outside_digests(config("films"), named) == before
    (named / "outside.jsonl").write_text(rows)
    films = (named / "tasks" / "films.yaml").read_text()
    for name, text, said in (
            ("code", films.replace("{{question}}", "!function utils.x").replace('"!', "!").replace('x"', "x")
             .replace("task: films", "task: code"), "no !function"),
            ("away", films.replace("films.jsonl", "../outside.jsonl").replace("task: films", "task: away"),
             "names ../outside.jsonl, which is no file of its folder"),
            ("hub", films.replace("path: json", "path: owner/name").replace("task: films", "task: hub"),
             "since what is read is part of the key; it has 'owner/name'"),
            ("bare", "task: bare\ndataset_path: csv\n", "needs dataset_kwargs"),
            ("list", "task: list\ndataset_path: csv\ndataset_kwargs: [data_files]\n", "needs dataset_kwargs"),
            ("other", films, "is no task called other")):
        (named / "tasks" / f"{name}.yaml").write_text(text)
        with pytest.raises(InputError, match=re.escape(said)):
            outside_digests(config(name), named)
    with pytest.raises(InputError, match=r"there is no .*absent.yaml"):
        outside_digests(config("absent"), named)
    with pytest.raises(InputError, match=r"evaluate.lm_eval.folder: empty: there is no such folder"):
        outside_digests(EvaluateConfig(lm_eval=LmEval(tasks=("films",))), named)


@pytest.mark.parametrize("size", [1, 3])
def test_likelihoods_do_not_depend_on_the_size_of_batches(folder, tokenizer, monkeypatch, size):
    subject = Subject(load_model(folder / "model", torch.device("cpu")), tokenizer, chats=False)
    pairs = [(tokenizer.encode(question).ids, tokenizer.encode(answer).ids) for question, answer in ANSWERS.items()]
    pairs.append(([5] * 100, [7] * 60))      # longer than the context
    usual = harness.scored(subject, pairs)
    monkeypatch.setattr(harness, "BATCH", size)
    other = harness.scored(subject, pairs)
    assert [value for value, _ in usual] == pytest.approx([value for value, _ in other], rel=1e-5)
    assert [greedy for _, greedy in usual] == [greedy for _, greedy in other]
    ours = answer_log_probs(subject.model, [context for context, _ in pairs], [answer for _, answer in pairs])
    assert [value for value, _ in usual] == pytest.approx(ours.tolist(), rel=1e-5)
