"""Errors that speak to the person who gave the input."""


class InputError(ValueError):
    """What was given cannot be used: one line that names the file or field and says what to do."""


class TrainingDiverged(RuntimeError):
    """The loss stopped being a finite number and the policy says to stop; the last good checkpoint stays."""


class RewardFailed(InputError):
    """A reward that a user brought gives no number for an answer; what was trained before stays in a checkpoint."""


class BudgetSpent(RuntimeError):
    """The time or the money that a run may take is used up; the same run continues from what it saved."""


class GateFailed(RuntimeError):
    """A release did not meet a gate; its versions stay registered, tagged as failed."""
