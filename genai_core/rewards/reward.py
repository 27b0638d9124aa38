"""The weighted sum of the rewards that a run declares, and the protocol that each of them follows.

Whatever a reward does wrong (it raises, takes too long, gives too few values or one that is no number) is one line that
names it, raised before the step moves any weight.
"""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from genai_core.config.rewards import AnyReward
from genai_core.data.instruction.examples import Example
from genai_core.errors import InputError, RewardFailed
from genai_core.inference.reward import OpenedRewardModel
from genai_core.rewards.answers import last_number
from genai_core.rewards.apart import Apart
from genai_core.rewards.unit_tests import require_code_allowed
from genai_core.rewards.verifiable import Submissions, values_of

MAY_NEVER_END = ("pattern", "json_schema", "function")
SHOWN = 100
"""Characters of an answer that a failure shows."""


class Reward(Protocol):
    """Scores answers to prompts."""

    def score(self, prompts: Sequence[Example], answers: Sequence[str]) -> Tensor:
        """Scores (B,) on the CPU, one for each answer. Raises RewardFailed, which says why it cannot."""

    def close(self) -> None:
        """End what it has started."""


class ModelReward:
    """The score of a reward model."""

    def __init__(self, reward_model: OpenedRewardModel):
        self.reward_model = reward_model

    def score(self, prompts: Sequence[Example], answers: Sequence[str]) -> Tensor:
        return self.reward_model.score([prompt.answered(answer)
                                        for prompt, answer in zip(prompts, answers, strict=True)], prompts)

    def close(self) -> None:
        pass


class VerifiableReward:
    """A reward that is computed from the text of an answer and from what its record says is right."""

    def __init__(self, declared: AnyReward):
        self.declared = declared
        self.apart = Apart(declared) if declared.kind in MAY_NEVER_END else None

    def score(self, prompts: Sequence[Example], answers: Sequence[str]) -> Tensor:
        submissions = Submissions([prompt.asked for prompt in prompts], list(answers),
                                  [prompt.answers for prompt in prompts])
        return torch.tensor(self.apart(submissions) if self.apart else values_of(self.declared, submissions))

    def close(self) -> None:
        if self.apart:
            self.apart.close()


class Scores(NamedTuple):
    """What answers are worth."""

    total: Tensor
    """Σ w r (B,), the sum of all rewards r by their weights w."""
    each: dict[str, Tensor]
    """r (B,) of every reward, by its name."""

    @property
    def parts(self) -> dict[str, Tensor]:
        """What the curves show beside the sum: each reward, where there are several."""
        return self.each if len(self.each) > 1 else {}


class Rewards:
    """The rewards of a run; on leaving the `with` block the processes that they have started are ended."""

    def __init__(self, rewards: Mapping[str, tuple[float, Reward]]):
        """Weight and reward by name."""
        self.rewards = rewards

    def __enter__(self) -> "Rewards":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
                 ) -> None:
        for _, reward in self.rewards.values():
            reward.close()

    def score(self, prompts: Sequence[Example], answers: Sequence[str]) -> Scores:
        """Scores of answers to prompts. Raises RewardFailed, which names the reward that gives none, and where finite
        ones add up to a sum that is not."""
        each = {name: self._checked(name, reward, prompts, answers) for name, (_, reward) in self.rewards.items()}
        total = torch.stack([weight * each[name] for name, (weight, _) in self.rewards.items()]).sum(0)
        if not total.isfinite().all():
            largest = ", ".join(f"{scores.abs().max().item():g} of {name}" for name, scores in each.items())
            raise RewardFailed("rlhf.rewards: the weighted sum is more than a number in float32 can hold, of values up "
                               f"to {largest}; scale them down")
        return Scores(total, each)

    @staticmethod
    def _checked(name: str, reward: Reward, prompts: Sequence[Example], answers: Sequence[str]) -> Tensor:
        try:
            scores = reward.score(prompts, answers)
        except RewardFailed as failure:
            raise RewardFailed(f"rlhf.rewards.{name}: {failure}") from None
        if len(scores) != len(answers):
            raise RewardFailed(f"rlhf.rewards.{name}: {len(scores)} values for {len(answers)} answers; a reward gives "
                               "one for each")
        if not scores.isfinite().all():
            place = int((~scores.isfinite()).nonzero()[0])
            answer = answers[place] if len(answers[place]) <= SHOWN else f"{answers[place][:SHOWN]} …"
            raise RewardFailed(f"rlhf.rewards.{name}: {scores[place].item()} for the answer {answer!r}; a reward gives "
                               "a finite number for every answer, an empty one too")
        return scores


def open_rewards(declared: Mapping[str, AnyReward], reward_model: OpenedRewardModel | None) -> Rewards:
    """The rewards that a config declares. Raises InputError where code is to be run and this machine may not."""
    rewards: dict[str, tuple[float, Reward]] = {}
    for name, reward in declared.items():
        if reward.kind == "reward_model":
            if reward_model is None:
                raise InputError(f"rlhf.rewards.{name}: there is no reward model")
            rewards[name] = reward.weight, ModelReward(reward_model)
            continue
        if reward.kind == "unit_tests":
            require_code_allowed(name)
        rewards[name] = reward.weight, VerifiableReward(reward)
    return Rewards(rewards)


def check_prompts(declared: Mapping[str, AnyReward], prompts: Sequence[Example]) -> None:
    """Raises InputError for a prompt to which no answer can be right: where numbers are compared, one without any."""
    for name, reward in declared.items():
        for prompt in prompts if reward.kind == "number" else ():
            if all(last_number(answer) is None for answer in prompt.answers):
                raise InputError(f"rlhf.rewards.{name}: the answer {prompt.answer!r} to {prompt.subject!r} has no "
                                 "number in it, so none can equal it; take exact_answer, or other problems")
