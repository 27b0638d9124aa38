"""What a running stage reports, and where it goes: curves to MLflow, progress to Prefect, both to the terminal.

Each service is written to by one thread in batches. A service that is slow or away holds up neither the training nor
the other service: what could not be sent is kept and sent again.
"""

import contextvars
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from tasks.tracking import client as tracking
from tasks.tracking.events import announce
from tasks.tracking.stall import LossWatch, tell

logger = logging.getLogger("genai_core")

SEND_SECONDS = 5.0
SYSTEM_SECONDS = 10.0
MAX_POINTS = 1000
"""Points of one curve in MLflow; longer curves are thinned there and whole in `curves.json`."""
BATCH_POINTS = 1000
"""As many as MLflow takes in one call."""
PATIENCE_SECONDS = 600.0
"""How long the end of a stage waits for MLflow to take the last points."""


class StageReporter:
    """The reporter that the core talks to while a stage executes. Close it to send what is left."""

    def __init__(self, run_id: str, stage: str, watch: LossWatch | None = None):
        self.stage = stage
        self._watch = watch
        self._curves = CurveWriter(run_id)
        self._progress = ProgressArtifact(stage)
        self._shown = 0.0

    def progress(self, done: float, total: float, unit: str, **figures: float) -> None:
        self._progress.percent = 100 * done / total if total else 0.0
        if done >= total or time.monotonic() - self._shown > 0.2:
            self._shown = time.monotonic()
            announce("progress", self.stage, done=done, total=total, unit=unit, figures=figures)

    def metrics(self, step: int, **values: float) -> None:
        self._curves.add(step, values)
        if self._watch and (text := self._watch.see(step, values.get("loss"))):
            self.note(text)
            tell(self.stage, text)

    def note(self, text: str) -> None:
        logger.info("%s: %s", self.stage, text)
        announce("note", self.stage, text=text)

    def close(self, patience: float = PATIENCE_SECONDS) -> None:
        """Raises MlflowException when MLflow does not take the points within so many seconds."""
        self._progress.close()
        self._curves.close(patience)


class CurveWriter:
    """Sends the points of all curves of one MLflow run, and the machine's load beside them."""

    def __init__(self, run_id: str):
        self.run_id = run_id
        self._points: list[Any] = []
        self._counts: dict[str, int] = {}
        self._lock = threading.Lock()
        self._system = SystemMetrics()
        self._thread = Repeating(SEND_SECONDS, self._tick)

    def add(self, step: int, values: dict[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        with self._lock:
            for name, value in values.items():
                seen = self._counts[name] = self._counts.get(name, 0) + 1
                if seen <= MAX_POINTS or seen % (seen // MAX_POINTS + 1) == 0:
                    self._points.append(Metric(tracking.allowed_name(name), float(value), now, step))

    def close(self, patience: float) -> None:
        self._thread.stop()
        deadline = time.monotonic() + patience
        while True:
            try:
                return self._send()
            except tracking.outage() as error:
                if time.monotonic() > deadline:
                    raise
                logger.warning("MLflow does not take the last points (%s): trying again", tracking.first_line(error))
                time.sleep(SEND_SECONDS)

    def _tick(self) -> None:
        self.add(*self._system.sample())
        self._send()

    def _send(self) -> None:
        """Points leave the list only once MLflow has them; it drops a point that it is sent twice."""
        while self._points:
            batch = self._points[:BATCH_POINTS]
            tracking.client().log_batch(self.run_id, metrics=batch)
            with self._lock:
                del self._points[:len(batch)]


class SystemMetrics:
    """Load of the machine, by MLflow's own monitors, under the names that its page for system metrics knows."""

    def __init__(self) -> None:
        from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
        from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
        from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

        self._monitors: list[Any] = [CPUMonitor(), DiskMonitor()]
        try:
            self._monitors.append(GPUMonitor())
        except Exception as error:      # the driver's library raises its own errors where there is no GPU
            logger.debug("no GPU to monitor: %s", error)
        self._step = 0
        self._sampled = 0.0

    def sample(self) -> tuple[int, dict[str, float]]:
        """Step and values; none when the last sample is younger than ten seconds."""
        if time.monotonic() - self._sampled < SYSTEM_SECONDS:
            return self._step, {}
        self._sampled, self._step = time.monotonic(), self._step + 1
        values: dict[str, float] = {}
        for monitor in self._monitors:
            monitor.collect_metrics()
            values |= {f"system/{name}": value for name, value in monitor.aggregate_metrics().items()}
            monitor.clear_metrics()
        return self._step, values


class ProgressArtifact:
    """The bar of a stage in the Prefect UI; it appears for stages that take longer than one interval."""

    def __init__(self, stage: str):
        from prefect.context import FlowRunContext, TaskRunContext

        self.stage, self.percent = stage, 0.0
        self._id: Any = None
        self._thread = Repeating(SEND_SECONDS, self._tick) if TaskRunContext.get() or FlowRunContext.get() else None

    def close(self) -> None:
        if self._thread:
            self._thread.stop()
            if self._id and self.percent:
                self._thread.attempt()

    def _tick(self) -> None:
        from prefect.artifacts import create_progress_artifact, update_progress_artifact

        if self._id is None:
            self._id = create_progress_artifact(self.percent, key=f"progress-{self.stage.replace('_', '-')}",
                                                description=f"Progress of {self.stage}")
        else:
            update_progress_artifact(self._id, self.percent)


class Repeating:
    """Calls a function every `seconds` in a thread of its own, in the context of whoever made it."""

    def __init__(self, seconds: float, function: Callable[[], None]):
        self._seconds, self._function = seconds, function
        self._stop = threading.Event()
        self._failing = False
        self._thread = threading.Thread(target=contextvars.copy_context().run, args=(self._loop,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def attempt(self) -> None:
        """One call; a failure is logged when it begins and when it is over, since the next call makes up for it."""
        try:
            self._function()
        except Exception as error:
            if not self._failing:
                logger.warning("a service does not answer (%s); what it misses is sent later",
                               tracking.first_line(error))
            self._failing = True
        else:
            if self._failing:
                logger.warning("the service answers again")
            self._failing = False

    def _loop(self) -> None:
        while not self._stop.wait(self._seconds):
            self.attempt()
