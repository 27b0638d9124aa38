"""Stages that do not need each other, side by side: each as soon as its inputs are there."""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from typing import Any

from tasks.execution.task import LastStageDone
from tasks.pipeline import PipelineRun
from tasks.placement.apart import end_all, ending
from tasks.stage import Stage
from tasks.tracking.client import first_line

logger = logging.getLogger("tasks")


def make_side_by_side(run: PipelineRun, stages: Sequence[Stage], make: Callable[[PipelineRun, Stage], Any]) -> None:
    """Make the artifacts of stages, at most `runtime.stages_at_once` at a time, in their order where there is a choice.

    When one fails, those under way come to their end, no other begins, and the first error is raised. Raises
    LastStageDone when the run ends with one of them.
    """
    ending.clear()
    names = [stage.name for stage in stages]
    ends_early = run.until in names
    waiting = list(stages[:names.index(run.until) + 1] if ends_early else stages)
    under_way: dict[Future[Any], Stage] = {}
    failure: BaseException | None = None
    with ThreadPoolExecutor(run.config.runtime.stages_at_once, "stage") as threads:
        try:
            while under_way or (waiting and not failure):
                ready = [stage for stage in waiting if run.artifacts.keys() >= set(stage.input_stages)]
                for stage in ready[:run.config.runtime.stages_at_once - len(under_way)] if not failure else []:
                    waiting.remove(stage)
                    under_way[threads.submit(copy_context().run, make, run, stage)] = stage
                for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                    stage = under_way.pop(future)
                    error = future.exception()
                    if error is None or isinstance(error, LastStageDone):
                        continue
                    if under_way and not failure:
                        others = ", ".join(each.name for each in under_way.values())
                        logger.warning("%s failed (%s); %s come to their end first", stage.name, first_line(error),
                                       others)
                    failure = failure or error
        except BaseException:
            end_all()
            raise
    if failure:
        raise failure
    if ends_early:
        raise LastStageDone(run.until)
