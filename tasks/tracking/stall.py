"""A loss that does not fall any more: noticed while a stage trains, and told as an event of Prefect."""

import math

STALLED = "genai.loss.stalled"
SMOOTHING = 0.9
"""Weight of the past in the mean of the loss: one lucky batch is no new low."""


class LossWatch:
    """Says once for each stall that the mean of the loss has reached no new low in `patience` steps.

    A loss that is not finite counts as one that does not fall.
    """

    def __init__(self, patience: int):
        self.patience = patience
        self._mean = self._best = math.nan
        self._best_step = 0
        self._told = False

    def see(self, step: int, loss: float | None) -> str:
        """What there is to tell after this step; empty for nothing."""
        if loss is not None and math.isfinite(loss):
            self._mean = loss if math.isnan(self._mean) else SMOOTHING * self._mean + (1 - SMOOTHING) * loss
            if math.isnan(self._best) or self._mean < self._best:
                self._best, self._best_step, self._told = self._mean, step, False
        if self._told or step - self._best_step < self.patience:
            return ""
        self._told = True
        return f"the loss has reached no new low since step {self._best_step}, now is step {step}"


def tell(stage: str, text: str) -> None:
    """Send the event that automations wait for; nothing outside a flow run."""
    from prefect.events import emit_event
    from prefect.runtime import flow_run

    if flow_run.id:
        emit_event(STALLED, {"prefect.resource.id": f"prefect.flow-run.{flow_run.id}", "prefect.resource.name": stage},
                   payload={"run": flow_run.name, "stage": stage, "text": f"{stage}: {text}"})
