"""Termination in mid-training: the step under way is finished and saved before a signal takes effect."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)
OF_ANOTHER_RANK = signal.SIGTERM


class Interruption:
    """While entered, holds back SIGTERM and SIGINT once `defer` was called; the training loop asks after each step.

    A second signal is not held back. Outside the main thread, where Python delivers no signals, it does nothing.
    """

    def __init__(self) -> None:
        self.requested: signal.Signals | None = None
        self._deferring = False
        self._original: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            self._original = {number: signal.signal(number, self._receive) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._restore()
        if self.requested and error is None:      # it came after the last step was over
            signal.raise_signal(self.requested)

    def defer(self) -> None:
        """Hold back signals from now on."""
        self._deferring = True

    @property
    def name(self) -> str:
        """Name of the signal that was held back; of the one that another rank of the training got, where none was."""
        return (self.requested or OF_ANOTHER_RANK).name

    def deliver(self) -> None:
        """Let the signal that was held back, here or by another rank, do what it would have done."""
        number, self.requested = self.requested or OF_ANOTHER_RANK, None
        self._restore()
        signal.raise_signal(number)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._deferring and not self.requested:
            self.requested = signal.Signals(number)
            return
        self.requested = None
        self._restore()
        signal.raise_signal(signal.Signals(number))

    def _restore(self) -> None:
        while self._original:
            number, handler = self._original.popitem()
            signal.signal(number, handler)
