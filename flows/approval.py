"""A person's word before a release comes into service: the flow run is paused, and its page shows a form."""

import logging
from typing import Any, Literal

from prefect import pause_flow_run
from prefect.exceptions import FlowPauseTimeout
from prefect.input import RunInput

from flows.pipeline_run import Request
from genai_core.errors import GateFailed
from tasks.registry.promotion import Approve
from tasks.registry.releases import Release
from tasks.tables import shown

logger = logging.getLogger("tasks")

POLL_SECONDS = 2


class Approval(RunInput):
    """What a person answers."""

    decision: Literal["refuse", "promote"] = "refuse"
    """Whether the release comes into service."""
    who: str = ""
    """Who decides."""
    reason: str = ""
    """Why; it is recorded."""


def approval(request: Request) -> Approve | None:
    """How to ask a person about the release of a run; None where nobody is to be asked."""
    hours = request.limits.approval_hours
    if not hours:
        return None

    def ask(release: Release) -> str:
        figures = "\n".join(f"- {name}: {shown(value)}" for name, value in release.figures.items())
        text = (f"Every gate passed. Put these models in service in place of "
                f"{release.compared_with or 'none: it is the first release'}?\n\n{figures}")
        logger.info("waiting up to %g hours for a person's word: resume the flow run in the UI", hours)
        form: Any = Approval.with_initial_data(description=text)
        try:
            answer: Any = pause_flow_run(wait_for_input=form, timeout=int(3600 * hours) or 1,
                                         poll_interval=POLL_SECONDS)
        except FlowPauseTimeout:
            raise GateFailed(f"nobody approved the release within {hours:g} hours; the one in service stays") from None
        said = f"{answer.who or 'somebody'}{f': {answer.reason}' if answer.reason else ''}"
        if answer.decision != "promote":
            raise GateFailed(f"the release was refused by {said}; the one in service stays")
        return said

    return ask
