"""Labels on the disk: held-out ones never train, nothing is lost or asked twice, and faults are told in a line."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from genai_core.config.data import CollectConfig, FileSource
from genai_core.context import Context
from genai_core.data.shards.tables import read_table
from genai_core.errors import InputError
from genai_core.labelling.files import append_rows, locked, read_rows, remove_locked
from genai_core.labelling.labels import Candidate, Label, LabelFiles, now
from genai_core.labelling.prompts import prompts_in
from genai_core.labelling.session import Contestant, Session
from genai_core.stages import collect

PROMPTS = [[{"role": "user", "content": f"Question {number}?"}] for number in range(40)]
SHORT = Contestant("m/1", lambda prompt, seed: prompt[-1]["content"])
LONG = Contestant("m/2", lambda prompt, seed: f"{prompt[-1]['content']} {seed}")


@pytest.fixture
def files(tmp_path: Path) -> LabelFiles:
    return LabelFiles(tmp_path / "feedback")


def session(files: LabelFiles, labeller: str = "ann", **more) -> Session:
    return Session(more.pop("prompts", PROMPTS), more.pop("contestants", (SHORT, LONG)), files, labeller, **more)


def judge_all(made: Session) -> None:
    while question := made.next():
        made.judge(question, "first")
    made.close()


def splits_of(files: LabelFiles, folder: Path, recorder) -> list[str]:
    """Into which splits `collect` puts the choices."""
    source = FileSource(paths=(str(files.preferences),), content="preferences", licence="own")
    folder.mkdir()
    collect.run(CollectConfig(sources={"choices": source}), out_dir=folder,
                context=Context(folder, recorder, files.folder))
    return [row["split"] for row in read_table(folder, "preferences")]


def test_a_held_out_label_never_lands_in_the_training_split(files, tmp_path, recorder):
    judge_all(session(files, split="validation"))
    assert splits_of(files, tmp_path / "held-out", recorder) == ["validation"] * len(PROMPTS)
    judge_all(session(files, prompts=[[{"role": "user", "content": f"Why {number}?"}] for number in range(40)]))
    splits = splits_of(files, tmp_path / "both", recorder)
    assert splits[:len(PROMPTS)] == ["validation"] * len(PROMPTS) and "train" in splits[len(PROMPTS):]


def test_a_held_out_label_that_is_taken_back_stays_held_out(files):
    held_out = session(files, split="validation")
    held_out.judge(held_out.next(), "first")
    later = session(files)      # asks the prompts of another split
    assert later.undo() is not None
    later.judge(later.next(), "second")
    assert [row["split"] for row in read_rows(files.preferences)] == ["validation"]


def test_what_two_sessions_ask_is_labelled_once(files):
    one, other = session(files), session(files)
    assert one.judge(one.next(), "first") is not None
    assert other.judge(other.next(), "second") is None, "another session was faster"
    assert [label.verdict for label in files.labels("ann")] == ["first"]
    assert other.next().prompt == PROMPTS[1] and other.left == session(files).left


def test_two_sessions_at_the_same_time_keep_each_label_once(files):
    with ThreadPoolExecutor(2) as at_once:
        list(at_once.map(judge_all, [session(files), session(files)]))
    questions = [label.question for label in files.labels("ann")]
    assert len(questions) == len(set(questions)) == len(PROMPTS)


def test_two_sessions_at_the_same_time_take_each_label_back_once(files):
    judge_all(session(files))
    with ThreadPoolExecutor(2) as at_once:
        undone = list(at_once.map(lambda _: files.undo("ann"), range(len(PROMPTS))))
    assert None not in undone and len({label.question for label in undone}) == len(PROMPTS)
    assert files.labels() == []


def test_what_another_session_judged_is_asked_once_after_undo(files):
    one, other = session(files), session(files)
    one.judge(one.next(), "first")
    other.undo()
    assert other.to_go == len(PROMPTS)
    other.judge(other.next(), "second")
    assert other.next().prompt == PROMPTS[1]


def test_models_named_in_another_order_give_the_same_answers(files):
    one, other = session(files), session(files, "bob", contestants=(LONG, SHORT))
    texts = [{question.first.text, question.second.text} for question in (one.next(), other.next())]
    assert texts[0] == texts[1]


def test_a_prompt_that_a_model_cannot_be_asked_is_counted_and_the_next_one_comes(files):
    def refuses_the_first(prompt, seed):
        if prompt == PROMPTS[0]:
            raise InputError("the chat template refuses it")
        return "An answer"

    made = session(files, contestants=(SHORT, Contestant("m/9", refuses_the_first)))
    assert made.next().prompt == PROMPTS[1]
    assert (made.unanswered, made.why_unanswered, made.passed_over) == (1, "the chat template refuses it", 0)
    made.close()


def test_a_prompt_is_answered_at_the_second_attempt(files):
    attempts = []

    def fails_once(prompt, seed):
        attempts.append(prompt)
        if len(attempts) == 1:
            raise RuntimeError("out of memory")
        return "An answer"

    made = session(files, contestants=(SHORT, Contestant("m/9", fails_once)), prompts=PROMPTS[:1])
    with pytest.raises(RuntimeError, match="out of memory"):
        made.next()
    assert made.next().prompt == PROMPTS[0]
    made.close()


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_undo_leaves_all_other_lines_as_they_are(files, end):
    lines = b'{"prompt":  "\\ud800",   "chosen": "a"}' + end + b'{"prompt":\r"Caf\xc3\xa9"}' + end
    files.folder.mkdir()
    files.preferences.write_bytes(lines)
    made = session(files)
    made.judge(made.next(), "first")
    assert made.undo() is not None
    assert files.preferences.read_bytes() == lines
    made.close()


def test_a_last_line_that_is_open_stays_open(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(b'{"prompt": "a"}\n{"prompt": "b"}')
    with locked(tmp_path):
        remove_locked(tmp_path / "rows.jsonl", lambda row: row["prompt"] == "a")
    assert (tmp_path / "rows.jsonl").read_bytes() == b'{"prompt": "b"}'


def test_neither_add_nor_undo_goes_through_a_symbolic_link(files, tmp_path):
    label = Label(PROMPTS[0], Candidate("A", "m/1"), Candidate("B", "m/2"), "first", "ann", now())
    files.add(label)
    files.preferences.rename(tmp_path / "elsewhere.jsonl")
    files.preferences.symlink_to(tmp_path / "elsewhere.jsonl")
    before = (tmp_path / "elsewhere.jsonl").read_bytes()
    for change in (lambda: files.add(label), lambda: files.undo("ann")):
        with pytest.raises(OSError, match="symbolic link"):
            change()
    assert files.preferences.is_symlink() and (tmp_path / "elsewhere.jsonl").read_bytes() == before


def test_a_row_with_half_a_surrogate_pair_is_kept(tmp_path):
    append_rows(tmp_path / "rows.jsonl", [{"prompt": "\ud800"}, {"prompt": "é"}])
    assert [row["prompt"] for row in read_rows(tmp_path / "rows.jsonl")] == ["\ud800", "é"]
    with locked(tmp_path):
        remove_locked(tmp_path / "rows.jsonl", lambda row: row["prompt"] == "é")
    assert [row["prompt"] for row in read_rows(tmp_path / "rows.jsonl")] == ["\ud800"]


def test_a_line_that_is_nested_too_deeply_is_no_row(files):
    files.folder.mkdir()
    files.preferences.write_text('{"prompt": "a"}\n' + '{"a":' * 100_000 + "1" + "}" * 100_000 + "\n")
    with pytest.raises(InputError, match=r"preferences.jsonl, line 2: not a row of JSON"):
        session(files)


@pytest.mark.parametrize(("content", "asked"), [
    ("Why\u2028not?\nHow\x0cso\x85?\r\nWho?".encode(), ["Why\u2028not?", "How\x0cso\x85?", "Who?"]),
    (b"\xef\xbb\xbfWhy?\nHow?\n", ["Why?", "How?"]),
])
def test_a_line_of_a_text_is_a_prompt_whatever_stands_in_it(tmp_path, content, asked):
    (tmp_path / "p.txt").write_bytes(content)
    assert [prompt[0]["content"] for prompt in prompts_in(tmp_path / "p.txt")] == asked


def test_a_text_that_is_not_utf_8_is_refused_with_its_line(tmp_path):
    (tmp_path / "p.txt").write_bytes("Why?\nCafé?\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"p\.txt, line 2: not UTF-8 \(byte 0xe9\); save the file as UTF-8$"):
        prompts_in(tmp_path / "p.txt")


def test_half_a_surrogate_pair_in_a_prompt_is_asked_and_kept(tmp_path, files):
    (tmp_path / "p.jsonl").write_text(json.dumps({"prompt": "Why \ud800?"}) + "\n")
    made = session(files, prompts=prompts_in(tmp_path / "p.jsonl"))
    made.judge(made.next(), "first")
    made.close()
    assert read_rows(files.preferences)[0]["prompt"][0]["content"] == "Why \ufffd?"
