"""`genai label` as a person and as a program use it, on tiny models."""

import json
import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli.command import app
from genai_core.errors import InputError
from genai_core.export.model_directory import save_model
from genai_core.labelling.files import read_rows
from tests.conftest import tiny
from tests.end_to_end.helpers import wait_for


@pytest.fixture
def asked(tokenizer_dir, tmp_path, monkeypatch) -> list[str]:
    """Arguments of the command: two samples of a model, to five prompts."""
    monkeypatch.setenv("GENAI_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "model").mkdir()
    save_model(tiny(), tokenizer_dir, tmp_path / "model")
    (tmp_path / "prompts.txt").write_text("\n".join(f"Question {number}?" for number in range(5)))
    return ["label", str(tmp_path / "model"), "--prompts", str(tmp_path / "prompts.txt"), "--tokens", "6",
            "--temperature", "1", "--to", str(tmp_path / "feedback")]


def typed(asked: list[str], keys: str, labeller: str = "ann", *more: str):
    done = CliRunner().invoke(app, [*asked, "--labeller", labeller, *more], input="".join(f"{key}\n" for key in keys))
    assert done.exit_code == 0, done.output
    return done


def test_one_key_a_label_with_undo_and_a_later_session(asked, tmp_path):
    first = typed(asked, "1x2u2tq")
    assert "3 labels more of ann" in first.output and "2 prompts left" in first.output
    assert "temperature" not in first.output and "genai run --also --preferences" in first.output
    preferences = tmp_path / "feedback" / "preferences.jsonl"
    assert [row["verdict"] for row in read_rows(preferences)] == ["first", "second"]
    second = typed(asked, "bb")
    assert "3 prompts judged before are not asked again" in second.output and "0 prompts left" in second.output
    assert [row["verdict"] for row in read_rows(tmp_path / "feedback" / "undecided.jsonl")] == [
        "tie", "both_bad", "both_bad"]
    assert {row["chosen_model"] for row in read_rows(preferences)} == {str(tmp_path / "model")}


def test_labels_of_a_session_before_can_be_taken_back(asked, tmp_path):
    typed(asked, "1q")
    assert "1 labels fewer of ann" in typed(asked, "uq").output
    assert read_rows(tmp_path / "feedback" / "preferences.jsonl") == []


def test_the_same_command_goes_on_after_as_many_labels_as_were_asked_for(asked):
    for left in (3, 1, 0):
        done = typed(asked, "tttt", "ann", "--count", "2")
        assert f"{left} prompts left" in done.output
        assert f"{min(2, left + 2)} to go" in done.output or not left


def test_directories_that_end_alike_are_two_models(asked, tokenizer_dir, tmp_path):
    names = [tmp_path / parent / "run" / "model" for parent in ("one", "two")]
    for directory in names:
        directory.mkdir(parents=True)
        save_model(tiny(), tokenizer_dir, directory)
    typed(["label", *map(str, names), *asked[2:]], "1q")
    (row,) = read_rows(tmp_path / "feedback" / "preferences.jsonl")
    assert {row["chosen_model"], row["rejected_model"]} == set(map(str, names))


@pytest.mark.parametrize("below", ["", "/feedback"])
def test_a_file_in_the_place_of_the_folder_is_told(below, asked, tmp_path):
    with pytest.raises(InputError, match=r"--to .*prompts\.txt.*: .*prompts\.txt is a file, and labels are kept in"):
        CliRunner().invoke(app, [*asked[:-1], f"{tmp_path / 'prompts.txt'}{below}"], catch_exceptions=False)


def test_nothing_shown_tells_whose_answer_it_is(asked, tmp_path):
    shown = typed(asked, "q").output.split("labels more")[0]
    assert "Question 0?" in shown and "model" not in shown and "seed" not in shown


def test_a_program_labels_by_lines_of_json(asked):
    done = typed(asked, "12", "rule", "--json")
    questions = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(questions) == 3 and all(set(question) == {"prompt", "first", "second"} for question in questions)


def test_agreement_of_two_labellers_is_shown(asked):
    with pytest.raises(InputError, match="no label there yet"):
        CliRunner().invoke(app, [*asked, "--agreement"], catch_exceptions=False)
    typed(asked, "1t1bt")
    typed(asked, "2t1bt", "bob")
    shown = json.loads(typed(asked, "", "", "--agreement", "--json").stdout)
    (pair,) = shown["agreement"]
    assert (pair["first"], pair["second"], pair["labels"]) == ("ann", "bob", 5) and shown["wins"] == []
    assert "Cohen's kappa" in typed(asked, "", "", "--agreement").output


def refused(arguments: list[str], keys: str = "") -> str:
    """The line that the command ends with."""
    with pytest.raises(InputError) as caught:
        CliRunner().invoke(app, arguments, input="".join(f"{key}\n" for key in keys), catch_exceptions=False)
    return str(caught.value)


def test_labels_of_held_out_prompts_say_their_split_and_are_not_offered_for_training(asked, tmp_path, monkeypatch):
    wanted = []

    def prompts(file, tasks, split, *_):
        wanted.append(split)
        return [[{"role": "user", "content": "Question 0?"}]]

    monkeypatch.setattr("flows.cli.commands.label._prompts", prompts)
    done = typed(asked, "1", "ann", "--held-out")
    (row,) = read_rows(tmp_path / "feedback" / "preferences.jsonl")
    assert wanted == [row["split"]] == ["validation"]
    assert "on which nothing trains" in done.output and "genai run --also" not in done.output


@pytest.mark.parametrize("key", ["1", "u"])
def test_a_symbolic_link_is_told_in_a_line_and_left_alone(asked, tmp_path, key):
    typed(asked, "1q")
    preferences = tmp_path / "feedback" / "preferences.jsonl"
    preferences.rename(tmp_path / "elsewhere.jsonl")
    preferences.symlink_to(tmp_path / "elsewhere.jsonl")
    assert "preferences.jsonl: a symbolic link, through which no label is written" in refused(
        [*asked, "--labeller", "ann"], key)
    assert preferences.is_symlink()


def test_a_full_disk_is_told_in_a_line(asked, tmp_path, monkeypatch):
    typed(asked, "1q")
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:3]))
    told = refused([*asked, "--labeller", "bob"], "1")
    assert "labels cannot be kept there (No space left on device); name another folder with --to" in told
    assert len(read_rows(tmp_path / "feedback" / "preferences.jsonl")) == 1


def test_a_full_file_is_told_in_a_line(asked, monkeypatch):
    typed(asked, "1q")
    monkeypatch.setattr("genai_core.labelling.files.LARGEST_FILE", 10)
    told = refused([*asked, "--labeller", "bob"], "1")
    assert "labels cannot be kept there (preferences.jsonl is full; move it away)" in told


def test_a_folder_that_cannot_be_made_is_told_in_a_line(asked):
    told = refused([*asked[:-1], "/proc/feedback"], "1")
    assert told.startswith("/proc/feedback: labels cannot be kept there (")


def test_a_label_given_in_another_session_meanwhile_stays(asked, tmp_path, monkeypatch):
    from genai_core.labelling.session import Session

    judge = Session.judge

    def after_another(session, question, verdict):
        monkeypatch.setattr(Session, "judge", judge)
        judge(session, question, "tie")
        session.pending.insert(0, question.prompt)
        return judge(session, question, verdict)

    monkeypatch.setattr(Session, "judge", after_another)
    done = typed(asked, "1q")
    assert "judged in another session meanwhile" in done.output and "0 labels more of ann" in done.output
    assert [row["verdict"] for row in read_rows(tmp_path / "feedback" / "undecided.jsonl")] == ["tie"]


@pytest.mark.parametrize(("more", "said"), [
    (["--temperature", "0"], "--temperature 0: a model always gives the same answer"),
    (["--task", "sentiment"], "--task: the prompts are those of --prompts"),
    (["--prompts", "missing.txt"], "missing.txt: there is no such file"),
    (["--import", "verdicts"], "--import verdicts: write it as feedback:/EXPERIMENT"),
])
def test_what_cannot_be_asked_is_said_in_a_line(asked, more, said):
    with pytest.raises(InputError, match=said):
        CliRunner().invoke(app, [*asked, *more], catch_exceptions=False)


def test_a_model_that_is_not_there_is_told(asked):
    with pytest.raises(InputError, match="nowhere: neither a model directory"):
        CliRunner().invoke(app, ["label", "nowhere", *asked[2:]], catch_exceptions=False)


def test_what_was_labelled_is_there_when_the_command_is_killed(asked, tmp_path):
    """Without a word: by SIGKILL, while the next question is on the screen."""
    process = subprocess.Popen([sys.executable, "-m", "flows.cli.command", *asked, "--labeller", "ann", "--json"],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
                               cwd=Path(__file__).parents[2])
    assert process.stdin and process.stdout
    for key in "12":
        assert process.stdout.readline()
        process.stdin.write(f"{key}\n")
    assert process.stdout.readline()
    process.kill()
    process.wait()
    assert len(read_rows(tmp_path / "feedback" / "preferences.jsonl")) == 2


def test_a_person_presses_one_key_at_a_terminal(asked, tmp_path):
    """Without Enter; Ctrl-C ends it, and what was said is kept."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "flows.cli.command", *asked, "--labeller", "ann"]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
                               cwd=Path(__file__).parents[2], close_fds=True)
    os.close(theirs)

    def read_until(words: str) -> str:
        seen = ""
        while words not in seen:
            seen += os.read(ours, 4096).decode(errors="replace")
        return seen

    for key in (b"1", b"b", b"\x03"):
        read_until("q quit")
        wait_for(lambda: not termios.tcgetattr(ours)[3] & termios.ICANON, 30)      # what is typed before is not read
        os.write(ours, key)
    assert "2 labels more of ann" in read_until("--preferences")
    assert process.wait(60) == 0
    os.close(ours)
    assert len(read_rows(tmp_path / "feedback" / "preferences.jsonl")) == 1
    assert len(read_rows(tmp_path / "feedback" / "undecided.jsonl")) == 1
