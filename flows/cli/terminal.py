"""What a run looks like in the terminal: the stage list with states, a bar with loss, speed and time left.

Where the output is not a terminal, a line for each event instead, and one every few seconds of progress.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tasks.tracking.events import listen

MARKS = {"waiting": ("·", "dim"), "running": ("▶", "bold cyan"), "Completed": ("✔", "green"), "Cached": ("✔", "blue"),
         "Fetched": ("✔", "magenta")}
PLAIN_SECONDS = 10.0
LOGGERS = ("tasks", "genai_core")


class View:
    """Listens to the events of a run and draws them."""

    def __init__(self, console: Console, stages: Sequence[str]):
        self.console = console
        self.states = dict.fromkeys(stages, "waiting")
        self.details = dict.fromkeys(stages, "")
        self.began: dict[str, float] = {}
        self.seconds: dict[str, float] = {}
        self._progress: dict[str, dict[str, Any]] = {}
        self._printed = 0.0
        self._live: Live | None = None

    def __call__(self, event: str, stage: str, **details: Any) -> None:
        if event == "started":
            self.states[stage], self.began[stage] = "running", time.monotonic()
            self._line(f"▶ {stage}")
        elif event == "finished":
            self.states[stage] = details["state"]
            self.seconds[stage] = time.monotonic() - self.began[stage]
            self._progress.pop(stage, None)
            self._line(f"  {stage}: {details['state']} in {self.seconds[stage]:.1f} s")
        elif event == "note":
            self.details[stage] = details["text"]
            self._line(f"  {stage}: {details['text']}")
        elif event == "progress":
            self._progress[stage] = details
            if not self._live and time.monotonic() - self._printed > PLAIN_SECONDS:
                self._line(f"  {stage}: {self._progress_text(details)}")
        if self._live:
            self._live.update(self._draw())

    @contextmanager
    def shown(self) -> Iterator[None]:
        stop = listen(self)
        warnings = Warnings(self)
        for name in LOGGERS:
            logging.getLogger(name).addHandler(warnings)
        try:
            if self.console.is_terminal:
                with Live(self._draw(), console=self.console, refresh_per_second=4, transient=False) as self._live:
                    yield
            else:
                yield
        finally:
            self._live = None
            stop()
            for name in LOGGERS:
                logging.getLogger(name).removeHandler(warnings)

    def warn(self, text: str) -> None:
        """A line that stays, above the stage list."""
        self.console.print(f"! {text}", style="yellow", highlight=False, markup=False, soft_wrap=True)

    def _line(self, text: str) -> None:
        if not self._live:
            self._printed = time.monotonic()
            self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _draw(self) -> Group:
        table = Table(box=None, show_header=False, pad_edge=False)
        for stage, state in self.states.items():
            mark, style = MARKS.get(state, ("✘", "bold red"))
            seconds = self.seconds.get(stage)
            if state == "running":
                seconds = time.monotonic() - self.began[stage]
            table.add_row(Text(mark, style), Text(stage, style), Text("" if state == "running" else state, style),
                          Text(f"{seconds:6.1f} s" if seconds is not None else "", "dim"),
                          Text(self.details[stage], "dim", overflow="ellipsis", no_wrap=True))
        parts: list[Any] = [table]
        for stage, progress in list(self._progress.items()):
            if self.states[stage] == "running":
                bar = ProgressBar(total=progress["total"], completed=progress["done"], width=40)
                row = Table(box=None, show_header=False, pad_edge=False)
                several = list(self.states.values()).count("running") > 1
                row.add_row(*([Text(stage)] if several else []), bar, Text(self._progress_text(progress)))
                parts.append(row)
        return Group(*parts)

    def _progress_text(self, progress: dict[str, Any]) -> str:
        done, total = progress["done"], progress["total"]
        parts = [f"{done:,.0f} of {total:,.0f} {progress['unit']}"]
        figures = progress["figures"]
        if "loss" in figures:
            parts.append(f"loss {figures['loss']:.3f}")
        if speed := figures.get("per_second"):
            parts.append(f"{speed:,.0f} {progress['unit']}/s")
            parts.append(f"{(total - done) / speed:,.0f} s left")
        return ", ".join(parts)


class Warnings(logging.Handler):
    """Shows what the log warns of: a damaged artifact, a service that does not answer."""

    def __init__(self, view: View):
        super().__init__(logging.WARNING)
        self._view = view

    def emit(self, record: logging.LogRecord) -> None:
        self._view.warn(record.getMessage())
