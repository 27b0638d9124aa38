"""`genai label`: which of two answers is better, asked blind, for the next training and to compare models."""

import errno
import getpass
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.columns import Columns
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from flows.cli.commands.shared import AsJson, Preset, Settings, console, model_directory, opened_workspace, relative
from genai_core.errors import InputError

if TYPE_CHECKING:
    from genai_core.data.chat import Chat
    from genai_core.labelling.labels import Choice, LabelFiles
    from genai_core.labelling.session import Contestant, Question, Session

KEYS: dict[str, "Choice"] = {"1": "first", "2": "second", "3": "tie", "t": "tie", "4": "both_bad", "b": "both_bad"}
HELP = "1 the first is better · 2 the second · 3 tie · 4 both bad · u undo · q quit"


def label(model: Annotated[str, typer.Argument(help="models:/NAME@ALIAS, models:/NAME/VERSION, or a model directory.")]
          = "models:/genai-quantize@champion",
          other: Annotated[str, typer.Argument(help="Whose answers stand against it; without it, two samples of the "
                                                    "same model.", show_default=False)] = "",
          prompts: Annotated[Path | None, typer.Option(metavar="FILE", help="A prompt a line, or rows with a prompt or "
                                                       "messages; without it, questions of the preset's tasks.")]
          = None,
          task: Annotated[list[str] | None, typer.Option(metavar="TASK", help="Of which tasks; those of rlhf.tasks by "
                                                         "default.")] = None,
          held_out: Annotated[bool, typer.Option("--held-out", help="Questions of the validation split, to compare "
                                                 "models: "
                                                 "nothing trains on labels of those.")] = False,
          preset: Preset = "laptop", settings: Settings = None,
          count: Annotated[int, typer.Option(min=1, help="Most labels at one sitting.")] = 100,
          labeller: Annotated[str, typer.Option(help="Who you are; your login by default.", show_default=False)] = "",
          temperature: Annotated[float, typer.Option(min=0.0, help="0 always takes the likeliest token.")] = 0.7,
          tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 128,
          seed: Annotated[int, typer.Option(min=0, help="Of the choice of prompts and of sampling; the same for the "
                                                        "same answers.")] = 0,
          to: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where labels are kept; feedback/ of the "
                                                  "workspace by default.", show_default=False)] = None,
          agreement: Annotated[bool, typer.Option("--agreement", help="Ask nothing; show how often each model's answer "
                                                  "was better, and how much labellers agree.")] = False,
          taken: Annotated[str, typer.Option("--import", metavar="feedback:/EXPERIMENT", show_default=False,
                                             help="Ask nothing; take over verdicts that MLflow has logged.")] = "",
          as_json: AsJson = False) -> None:
    """Say which of two answers is better: blind, in random order, with one key. Each label is on the disk at once.

    `genai label models:/genai-instruct@candidate models:/genai-rlhf@candidate`, then `genai run --also --preferences
    feedback/preferences.jsonl`. The same command goes on where you stopped. With --json a program labels: each question
    is a line of JSON, each answer a line with a key.
    """
    from genai_core.labelling.labels import LabelFiles

    folder = to.expanduser() if to else opened_workspace().root / "feedback"
    with _keeping(folder):
        blocking = next((path for path in (folder, *folder.parents) if path.exists() and not path.is_dir()), None)
    if blocking:
        raise InputError(f"{'--to ' if to else ''}{to or folder}: {blocking} is a file, and labels are kept in a "
                         "folder; name one with --to")
    files = LabelFiles(folder)
    if agreement:
        return _show_agreement(files, as_json)
    if taken:
        return _take_over(taken, files)
    from genai_core.labelling.session import Session

    name = labeller.strip() or getpass.getuser()
    contestants = _contestants(model, other, temperature, tokens)
    asked = _prompts(prompts, task or [], "validation" if held_out else "train", preset, settings or [], seed)
    with _keeping(files.folder):
        session = Session(asked, contestants, files, name, seed, count, "validation" if held_out else None)
    _ask(session, files, as_json)


@contextmanager
def _keeping(folder: Path) -> Iterator[None]:
    """Raises InputError where the labels in a folder can be neither read nor written."""
    try:
        yield
    except OSError as error:
        link = next((path for path in folder.glob("*.jsonl") if path.is_symlink()), None)
        if error.errno == errno.ELOOP and link:
            raise InputError(f"{link}: a symbolic link, through which no label is written; name the folder that it "
                             "leads to with --to") from None
        raise InputError(f"{folder}: labels cannot be kept there ({error.strerror}); name another folder with --to"
                         ) from None


def _contestants(model: str, other: str, temperature: float, tokens: int) -> tuple["Contestant", "Contestant"]:
    if temperature == 0 and other in ("", model):
        raise InputError("--temperature 0: a model always gives the same answer then; name a second model, or raise it")
    from genai_core.hardware import choose_device
    from genai_core.inference.sampling import Sampling
    from genai_core.labelling.answers import answerer
    from genai_core.labelling.session import Contestant

    def contestant(named: str) -> Contestant:
        version, directory, chats = _opened(named)
        return Contestant(version, answerer(directory, chats, tokens, Sampling(temperature), choose_device("auto")))

    first = contestant(model)
    return first, contestant(other) if other not in ("", model) else first


def _opened(model: str) -> tuple[str, Path, bool]:
    """Version, directory, and whether it knows chats."""
    directory = model_directory(model)
    if not model.startswith("models:/"):
        return directory.resolve().as_posix(), directory, True
    from tasks.registry.versions import read_version
    from tasks.views.serving import knows_chats

    version = read_version(model)
    return f"{version.name}/{version.version}", directory, knows_chats(version)


def _prompts(file: Path | None, tasks: list[str], split: str, preset: str, settings: list[str], seed: int
             ) -> list["Chat"]:
    if file:
        if tasks or split != "train":
            raise InputError(f"{'--task' if tasks else '--held-out'}: the prompts are those of --prompts; leave one of "
                             "the two out")
        from genai_core.labelling.prompts import prompts_in

        return prompts_in(file.expanduser())
    from flows.cli.cleaned import cleaned_data
    from genai_core.data.instruction.examples import prompts_of

    config, cleaned = cleaned_data(preset, settings)
    known = config.active_tasks
    if unknown := [name for name in tasks if name not in known]:
        raise InputError(f"--task {unknown[0]}: there is no such task; there are {', '.join(known) or 'none'}")
    examples = prompts_of(known, tuple(tasks) or config.rlhf.tasks, cleaned, split, seed)
    if not examples:
        raise InputError("the tasks have no such question; name others with --task, or give --prompts FILE")
    return [example.asked for _, example in examples]


def _ask(session: "Session", files: "LabelFiles", as_json: bool) -> None:
    kept = 0
    if session.judged_before and not as_json:
        console.print(f"{session.judged_before:,} prompts judged before are not asked again", highlight=False)
    try:
        while question := session.next():
            _show(question, session.to_go, as_json)
            key = _key(as_json)
            if key == "q":
                break
            if key == "u":
                with _keeping(files.folder):
                    undone = session.undo()
                kept -= undone is not None
                _say("taken back" if undone else "there is nothing to take back on these two", as_json)
            elif key in KEYS:
                with _keeping(files.folder):
                    added = session.judge(question, KEYS[key])
                kept += added is not None
                if not added:
                    _say("judged in another session meanwhile; that label stays", as_json)
            else:
                _say(HELP, as_json)
    except (EOFError, KeyboardInterrupt):      # what was said is kept already
        pass
    finally:
        session.close()
    over = f"; {session.passed_over:,} prompts with equal or empty answers passed over" if session.passed_over else ""
    if session.unanswered:
        over += f"; {session.unanswered:,} that a model cannot be asked ({session.why_unanswered})"
    change = f"{abs(kept):,} labels {'fewer' if kept < 0 else 'more'}"
    _say(f"{change} of {session.labeller} in {relative(str(files.folder))}, {len(session.pending):,} "
         f"prompts left{over}", as_json)
    if session.split:
        _say(f"they are of the {session.split} split, on which nothing trains", as_json)
    else:
        _say(f"to train on them: genai run --also --preferences {relative(str(files.preferences))}", as_json)


def _show(question: "Question", left: int, as_json: bool) -> None:
    """The prompt and two answers, with nothing that tells whose they are."""
    if as_json:
        typer.echo(json.dumps({"prompt": question.prompt, "first": question.first.text,
                               "second": question.second.text}, ensure_ascii=False))
        return
    console.rule(f"{left:,} to go")
    for message in question.prompt:
        console.print(Text(f"{message['role']}: {message['content']}"), style="bold")
    width = max(30, console.width // 2 - 1)
    answers = [Panel(Text(answer.text), title=number, width=width)
               for number, answer in (("1", question.first), ("2", question.second))]
    console.print(Columns(answers, padding=(0, 1)))
    console.print(HELP, style="dim", highlight=False)


def _key(as_json: bool) -> str:
    """The next key: of the terminal, or of a program that writes a line for each."""
    if not as_json and sys.stdin.isatty():
        import click

        return click.getchar().lower()
    line = sys.stdin.readline()
    return (line.strip() or " ")[:1].lower() if line else "q"


def _say(text: str, as_json: bool) -> None:
    if as_json:
        typer.echo(text, err=True)
    else:
        console.print(text, highlight=False, markup=False, soft_wrap=True)


def _show_agreement(files: "LabelFiles", as_json: bool) -> None:
    from genai_core.labelling.agreement import agreement, wins

    with _keeping(files.folder):
        labels = files.labels()
    if not labels:
        raise InputError(f"{files.folder}: no label there yet; `genai label` asks for the first")
    won, agreed = wins(labels), agreement(labels)
    if as_json:
        return typer.echo(json.dumps({"labels": len(labels), "wins": [each.to_dict() for each in won],
                                      "agreement": [each.to_dict() for each in agreed]}, indent=1))
    table = Table("first", "second", "labels", "first better", "second better", "ties", "both bad", "second wins",
                  "95% interval")
    for each in won:
        counts = (each.labels, each.first_better, each.second_better, each.ties, each.both_bad)
        table.add_row(each.first, each.second, *map(str, counts), f"{each.win_rate:.3f}",
                      f"{each.low:.3f} to {each.high:.3f}")
    console.print(table if won else f"{len(labels):,} labels, all of two samples of one model")
    both = Table("labeller", "labeller", "in common", "agreement", "Cohen's kappa")
    for pair in agreed:
        both.add_row(pair.first, pair.second, str(pair.labels), f"{pair.agreement:.1%}",
                     "not defined" if pair.kappa is None else f"{pair.kappa:.3f}")
    console.print(both if agreed else "no two labellers judged the same answers yet", highlight=False)


def _take_over(address: str, files: "LabelFiles") -> None:
    """Verdicts that an application logged: choices between answers to one prompt, and rated answers."""
    if not address.startswith("feedback:/") or not address.removeprefix("feedback:/"):
        raise InputError(f"--import {address}: write it as feedback:/EXPERIMENT")
    opened_workspace()
    from genai_core.data.sources.bad_rows import BadRow
    from genai_core.data.sources.shapes.rows import recognise
    from genai_core.labelling.files import append_rows, read_rows
    from tasks.tracking.feedback import verdicts_as_labels

    try:
        labels, rated = verdicts_as_labels(address.removeprefix("feedback:/"))
    except InputError as error:
        raise InputError(f"--import {address}: {error}") from None
    ratings = files.folder / "ratings.jsonl"
    kept, fresh, reasons = 0, [], []
    with _keeping(files.folder):
        known = {_in_one_line(asdict(each)) for each in files.labels()}
        before = {_in_one_line(row) for row in read_rows(ratings)}
        for each in labels:
            if _in_one_line(asdict(each)) not in known:
                try:
                    files.add(each)
                    kept += 1
                except BadRow as reason:
                    reasons.append(str(reason))
        for row in rated:
            if _in_one_line(row) not in before:
                try:      # what the next training could not read would stop it
                    recognise(row, "ratings").read(row)
                    fresh.append(row)
                except BadRow as reason:
                    reasons.append(str(reason))
        if fresh:
            append_rows(ratings, fresh)
    console.print(f"{kept:,} choices and {len(fresh):,} rated answers more in {relative(str(files.folder))}",
                  highlight=False, soft_wrap=True)
    if reasons:
        console.print(f"{len(reasons):,} left out, from which nothing can be learned: {reasons[0]}", highlight=False,
                      markup=False, soft_wrap=True)


def _in_one_line(row: dict[str, Any]) -> str:
    """A row as a text that is equal where the row is."""
    return json.dumps(row, sort_keys=True)
