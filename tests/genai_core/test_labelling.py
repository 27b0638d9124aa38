"""Labelling: blind, in random order, kept as what `collect` reads, taken back, gone on with, and compared."""

import json
import multiprocessing
import time
from collections import Counter
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest
import torch
from sklearn.metrics import cohen_kappa_score

from genai_core.data.sources.bad_rows import BadRow
from genai_core.data.sources.shapes.preferences import read_preference
from genai_core.errors import InputError
from genai_core.export.model_directory import save_model
from genai_core.inference.sampling import Sampling
from genai_core.labelling.agreement import agreement, wins
from genai_core.labelling.answers import answerer, first_line
from genai_core.labelling.files import append_rows, read_rows
from genai_core.labelling.labels import Candidate, Label, LabelFiles, now, prompt_key
from genai_core.labelling.prompts import prompts_in
from genai_core.labelling.session import Contestant, Session
from genai_core.serving.errors import Refused
from genai_core.serving.front.feedback import respond

PROMPTS = [[{"role": "user", "content": f"Question {number}?"}] for number in range(40)]
SHORT = Contestant("m/1", lambda prompt, seed: prompt[-1]["content"])
LONG = Contestant("m/2", lambda prompt, seed: f"{prompt[-1]['content']} {seed}")


@pytest.fixture
def files(tmp_path: Path) -> LabelFiles:
    return LabelFiles(tmp_path / "feedback")


def session(files: LabelFiles, labeller: str = "ann", prompts=PROMPTS, contestants=(SHORT, LONG), seed: int = 0
            ) -> Session:
    return Session(prompts, contestants, files, labeller, seed)


def longer(question) -> str:
    """A labeller with a rule."""
    return "first" if len(question.first.text) > len(question.second.text) else "second"


def judge_all(made: Session, rule=longer, most: int = 1000) -> int:
    count = 0
    while count < most and (question := made.next()):
        made.judge(question, rule(question))
        count += 1
    made.close()
    return count


def test_choices_are_preferences_that_collect_reads_with_who_when_and_what(files):
    assert judge_all(session(files)) == len(PROMPTS)
    rows = read_rows(files.preferences)
    assert len(rows) == len(PROMPTS) and not files.undecided.exists()
    for row in rows:
        _, record = read_preference(row)
        assert record["chosen"][0]["content"].startswith(record["rejected"][0]["content"])
        assert (row["chosen_model"], row["rejected_model"], row["labeller"]) == ("m/2", "m/1", "ann")
        assert str(row["chosen_seed"]) in record["chosen"][0]["content"] and row["when"] < now()


def test_a_tie_and_two_bad_answers_are_kept_but_are_no_pairs(files):
    verdicts = iter(["tie", "both_bad", "first"])
    assert judge_all(session(files), lambda _: next(verdicts), most=3) == 3
    assert len(read_rows(files.preferences)) == 1
    assert [row["verdict"] for row in read_rows(files.undecided)] == ["tie", "both_bad"]
    assert [label.verdict for label in files.labels()] == ["tie", "both_bad", "first"]


def test_which_answer_is_shown_first_is_random_but_the_same_for_a_labeller_and_a_prompt(files):
    def orders(labeller: str) -> list[str]:
        made = session(LabelFiles(files.folder / labeller), labeller)
        shown = []
        while question := made.next():
            shown.append(question.first.model)
            made.judge(question, "tie")
        made.close()
        return shown

    ann, bob = orders("ann"), orders("bob")
    assert 10 < Counter(ann)["m/1"] < 30 and 10 < Counter(bob)["m/1"] < 30
    assert ann != bob, "labellers must not see the same order"


def test_all_labellers_judge_the_same_samples_and_another_seed_gives_others(files):
    one, other = session(files, "ann").next(), session(files, "bob").next()
    assert {one.first.text, one.second.text} == {other.first.text, other.second.text}
    again = session(files, "ann", seed=1).next()
    assert {again.first.text, again.second.text} != {one.first.text, one.second.text}


def test_nobody_is_asked_twice_and_a_session_goes_on_where_one_stopped(files):
    assert judge_all(session(files), most=15) == 15
    resumed = session(files)
    assert resumed.judged_before == 15 and resumed.next().prompt == PROMPTS[15]
    assert judge_all(resumed) == len(PROMPTS) - 15
    assert judge_all(session(files)) == 0
    assert judge_all(session(files, "bob")) == len(PROMPTS), "another person is asked all of them"
    newer = Contestant("m/3", LONG.answer)
    assert judge_all(session(files, contestants=(SHORT, newer))) == len(PROMPTS), "so is who judges another version"
    assert Counter(label.question for label in files.labels("ann")).most_common(1)[0][1] == 1


def test_a_session_has_so_many_questions_and_the_next_one_goes_on(files):
    def session_of_ten() -> Session:
        return Session(PROMPTS, (SHORT, LONG), files, "ann", most=10)

    for before in (0, 10, 20, 30):
        made = session_of_ten()
        assert (made.judged_before, made.to_go) == (before, 10) and judge_all(made) == 10
    assert judge_all(session_of_ten()) == 0
    again = session_of_ten()
    again.undo()
    assert judge_all(again) == 1


def test_undo_leaves_labels_of_other_models(files):
    judge_all(session(files), most=1)
    other = session(files, contestants=(SHORT, Contestant("m/3", LONG.answer)))
    assert other.undo() is None and len(files.labels("ann")) == 1


def test_a_session_that_is_left_does_not_wait_for_an_answer(files):
    begun, written = Event(), []

    def endless(prompt, seed):
        while True:
            begun.set()
            written.append("a word ")
            yield written[-1]
            time.sleep(0.001)

    made = session(files, contestants=(SHORT, Contestant("m/9", endless)))
    with ThreadPoolExecutor(1) as asking:
        asked = asking.submit(made.next)
        assert begun.wait(10)
        made.close()
        with pytest.raises(CancelledError):
            asked.result(10)
    made._writer.shutdown(wait=True)      # as the interpreter does at its end


@pytest.mark.parametrize("prompt", [
    [{"role": "user", "content": " "}],
    [{"role": role, "content": "Hi"} for role in ("user", "system", "user")]])
@pytest.mark.parametrize("verdict", ["second", "tie"])
def test_what_the_next_training_could_not_read_is_not_kept(files, prompt, verdict):
    bad = Label(prompt, Candidate("A", "m/1"), Candidate("B", "m/2"), verdict, "ann", now())
    with pytest.raises(BadRow):
        files.add(bad)
    given = {"kind": "label", "prompt": prompt, "first": {"text": "A", "model": "m/1"},
             "second": {"text": "B", "model": "m/2"}, "verdict": verdict, "labeller": "ann"}
    with pytest.raises(Refused, match="nothing to learn from: "):
        respond(files.folder, json.dumps(given).encode())
    assert not files.folder.exists()


def test_undo_takes_the_newest_label_of_this_person_back_and_asks_again(files):
    made = session(files)
    first = made.next()
    made.judge(first, "first")
    second = made.next()
    made.judge(second, "tie")
    other = session(files, "bob")
    other.judge(other.next(), "second")
    before = files.preferences.read_bytes()
    assert made.undo().verdict == "tie" and made.next() == second
    assert files.preferences.read_bytes() == before and read_rows(files.undecided) == []
    assert made.undo().verdict == "first" and made.next() == first
    assert [label.labeller for label in files.labels()] == ["bob"]
    assert made.undo() is None
    assert session(files).undo() is None
    later = session(files, "bob")
    assert later.undo().verdict == "second" and later.next().prompt == PROMPTS[0], "also that of an earlier session"


@pytest.mark.parametrize("other", [SHORT.answer, lambda prompt, seed: " \n"])
def test_equal_answers_and_empty_ones_are_asked_of_nobody(files, other):
    """`collect` could not read them as a preference."""
    made = session(files, contestants=(SHORT, Contestant("m/9", other)))
    assert made.next() is None and made.passed_over == len(PROMPTS)
    assert not files.folder.exists()


def test_rows_of_others_stay_and_are_no_labels(files):
    choice = {"prompt": PROMPTS[0], "chosen": "a", "rejected": "b", "when": "2026"}      # of the chat page
    append_rows(files.preferences, [choice])
    judge_all(session(files), most=1)
    files.undo("ann")
    assert read_rows(files.preferences) == [choice] and files.labels() == []


def _label(folder: Path, name: str) -> None:
    files = LabelFiles(folder)
    made = session(files, name)
    for _ in range(20):
        made.judge(made.next(), "first")
    for _ in range(5):
        made.undo()


def test_labellers_at_the_same_time_lose_nothing(files):
    context = multiprocessing.get_context("fork")
    labellers = [context.Process(target=_label, args=(files.folder, name)) for name in ("ann", "bob", "eve")]
    for each in labellers:
        each.start()
    for each in labellers:
        each.join()
    assert Counter(label.labeller for label in files.labels()) == {"ann": 15, "bob": 15, "eve": 15}


def test_what_is_no_row_is_told_with_its_line(files):
    files.folder.mkdir()
    files.preferences.write_text('{"prompt": "a"}\nhalf a li')
    with pytest.raises(InputError, match=r"preferences.jsonl, line 2: not a row of JSON"):
        session(files)


def test_a_line_that_somebody_left_open_is_ended_before_the_next(files):
    files.folder.mkdir()
    files.preferences.write_text('{"prompt": "a"}')
    append_rows(files.preferences, [{"prompt": "b"}])
    assert [row["prompt"] for row in read_rows(files.preferences)] == ["a", "b"]


def label(prompt: int, verdict: str, labeller: str, swapped: bool = False, models=("m/1", "m/2")) -> Label:
    answers = [Candidate("A", models[0], 1), Candidate("B", models[1], 2)]
    first, second = reversed(answers) if swapped else answers
    return Label(PROMPTS[prompt], first, second, verdict, labeller, f"{labeller}{prompt:03}")


def test_agreement_is_cohens_kappa_whatever_order_each_has_seen():
    said = [("first", "first"), ("first", "tie"), ("second", "second"), ("tie", "tie"), ("both_bad", "second"),
            ("second", "second"), ("first", "second")]
    turned = {"first": "second", "second": "first"}
    labels = [label(number, one, "ann") for number, (one, _) in enumerate(said)]
    labels += [label(number, turned.get(other, other), "bob", swapped=True) for number, (_, other) in enumerate(said)]
    (found,) = agreement(labels)
    assert (found.first, found.second, found.labels) == ("ann", "bob", 7)
    assert found.agreement == pytest.approx(4 / 7)
    assert found.kappa == pytest.approx(cohen_kappa_score(*zip(*said, strict=True)))


def test_kappa_of_two_who_said_one_thing_of_everything_is_not_defined():
    (found,) = agreement([label(number, "tie", name) for number in range(3) for name in ("ann", "bob")])
    assert (found.agreement, found.kappa) == (1.0, None)
    assert agreement([label(0, "tie", "ann"), label(1, "tie", "bob")]) == [], "they judged nothing in common"


def test_wins_count_a_draw_half_and_have_an_interval():
    verdicts = ["second"] * 20 + ["first"] * 10 + ["tie"] * 6 + ["both_bad"] * 4
    (found,) = wins(label(number, verdict, "ann") for number, verdict in enumerate(verdicts))
    assert (found.first_better, found.second_better, found.ties, found.both_bad) == (10, 20, 6, 4)
    assert found.win_rate == pytest.approx((20 + 5) / 40) and found.low < found.win_rate < found.high
    assert wins([label(0, "first", "ann", models=("m/1", "m/1"))]) == [], "two samples of one model"


def test_three_labels_for_one_model_are_no_certainty():
    (found,) = wins(label(number, "second", "ann") for number in range(3))
    assert (found.win_rate, found.high) == (1.0, 1.0) and found.low == pytest.approx(0.44, abs=0.01)


@pytest.mark.parametrize(("name", "text", "asked"), [
    ("p.txt", "How are you?\n\nWhy?\nWhy?\n", ["How are you?", "Why?"]),
    ("p.jsonl", '{"prompt": "Why?"}\n{"messages": [{"role": "user", "content": "How?"}, '
                '{"role": "assistant", "content": "So."}]}\n', ["Why?", "How?"]),
    ("p.csv", "question,other\nWhy?,1\n", ["Why?"]),
])
def test_prompts_come_from_a_file(tmp_path, name, text, asked):
    (tmp_path / name).write_text(text)
    assert [prompt[-1]["content"] for prompt in prompts_in(tmp_path / name)] == asked


@pytest.mark.parametrize(("name", "text", "said"), [
    ("p.txt", "\n", "no prompt in it"), ("p.jsonl", '{"text": "a"}\n', "line 1: no prompt: a column prompt"),
    ("p.json", '[{"prompt": 7}]', "row 1"),
])
def test_a_file_without_prompts_is_told(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=said):
        prompts_in(tmp_path / name)
    with pytest.raises(InputError, match="there is no such file"):
        prompts_in(tmp_path / "other.txt")


def test_answers_of_a_model_depend_on_the_seed_alone(tiny_model, tokenizer_dir, tmp_path):
    save_model(tiny_model, tokenizer_dir, tmp_path)
    answer = answerer(tmp_path, True, 8, Sampling(1.0), torch.device("cpu"))

    def said(answer, seed: int) -> str:
        return "".join(answer(PROMPTS[0], seed))

    assert said(answer, 1) == said(answer, 1) != said(answer, 2)
    plain = answerer(tmp_path, False, 8, Sampling(1.0), torch.device("cpu"))
    assert said(plain, 1) == said(plain, 1) != said(answer, 1)


@pytest.mark.parametrize("pieces", [["a", "b", "c"], [" ", "\n", " a", "b\n", "c"], ["a", "\nb"], ["\n\n"], []])
def test_a_continuation_ends_with_its_line(pieces):
    assert "".join(first_line(iter(pieces))).strip() == "".join(pieces).strip().partition("\n")[0].strip()


def test_a_prompt_is_the_same_whatever_else_its_messages_say():
    stored = json.loads('[{"content": "a", "role": "user"}]')
    assert prompt_key(stored) == prompt_key([{"role": "user", "content": "a"}])
