"""A reward that is computed in a process of its own: one that may never end, or take the process along."""

from typing import Any

from genai_core.errors import RewardFailed
from genai_core.mapping import Processes, WorkerDied
from genai_core.rewards.verifiable import Submissions, values_of

LIMIT_SECONDS = 60.0
"""Time that the answers of one step may take; what takes longer is ended."""


class Apart:
    """A process that computes the values of one reward, started at the first call."""

    def __init__(self, reward: Any, seconds: float = LIMIT_SECONDS):
        self.reward = reward
        self.seconds = seconds
        self._process = Processes(1, seconds)

    def __call__(self, submissions: Submissions) -> list[float]:
        """Raises RewardFailed where it raises, returns no numbers, takes too long or dies."""
        try:
            (values, failure), = self._process(values_or_failure, [(self.reward, submissions)])
        except TimeoutError:
            raise RewardFailed(f"more than {self.seconds:g} seconds for {len(submissions.answers)} answers; make it "
                               "faster, or batch_size smaller") from None
        except WorkerDied as death:
            raise RewardFailed(f"its process ended with status {death.status}; it must neither exit nor take more "
                               "memory than there is") from None
        if failure:
            raise RewardFailed(failure)
        return values

    def close(self) -> None:
        self._process.close()


def values_or_failure(call: tuple[Any, Submissions]) -> tuple[list[float], str]:
    """The values, or else why there are none, in words: not every exception can be handed to another process."""
    try:
        values = values_of(*call)
    except Exception as error:
        return [], f"it raised {type(error).__name__}: {' '.join(str(error).split())[:300]}"
    try:
        return [float(value) for value in values], ""
    except (TypeError, ValueError):
        return [], f"it returned {' '.join(repr(values).split())[:100]}, and not a number for each answer"
