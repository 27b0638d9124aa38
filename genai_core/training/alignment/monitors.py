"""Monitors of alignment: signs on held-out prompts that a policy no longer becomes better, although its reward says so.

What a reward does not see is lost first: the distance from the instruct model grows without bound, every answer becomes
the same, or what nobody optimised falls while the reward rises (Gao et al. 2023). A monitor that strikes ends training
at the last state at which none did.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from genai_core.config.training import MonitorConfig
from genai_core.training.curves import Curves, finite

MONITORED = ("held_out_kl", "held_out_entropy", "held_out_length", "held_out_distinct_2", "held_out_reward",
             "held_out_gold")
"""Curves that the monitors look at; that of the gold reward where there is one."""


@dataclass(frozen=True)
class Verdict:
    """Why a training is to end."""

    monitor: str
    value: float
    """The figure that struck."""
    reason: str


def verdict(config: MonitorConfig, before: dict[str, float], curves: Curves) -> Verdict | None:
    """What the first monitor that strikes says of the newest points of `curves`; None while none does.

    `before` are the figures of the instruct model on the same prompts. A figure that is not finite strikes too.
    """
    return next(_verdicts(config, before, curves), None)


def _verdicts(config: MonitorConfig, before: dict[str, float], curves: Curves) -> Iterator[Verdict]:
    newest = {name: curves[name][-1][1] for name in MONITORED if curves.get(name)}
    for name, value in newest.items():
        if value is None:
            yield Verdict(name.removeprefix("held_out_"), float("nan"), f"{name} is not a number any more")
            return
    now = {name: value for name, value in newest.items() if value is not None}
    kl, entropy, length = (now[f"held_out_{name}"] for name in ("kl", "entropy", "length"))
    distinct, entropy_before = now["held_out_distinct_2"], before["held_out_entropy"]
    if config.kl_budget is not None and kl > config.kl_budget:
        yield Verdict("kl", kl, f"the KL to the instruct model is {kl:.3g} nats a completion, above the budget of "
                                f"{config.kl_budget:g} (kl_budget)")
    if config.entropy_floor is not None and entropy < config.entropy_floor * entropy_before:
        yield Verdict("entropy", entropy, f"the entropy fell to {entropy:.3g} nats a token, below "
                                          f"{config.entropy_floor:g} of the instruct model's {entropy_before:.3g} "
                                          "(entropy_floor)")
    ratio = length / before["held_out_length"]
    if config.length_drift is not None and max(ratio, 1 / max(ratio, 1e-9)) > config.length_drift:
        yield Verdict("length", length, f"completions have {length:.3g} tokens in place of "
                                        f"{before['held_out_length']:.3g} (length_drift)")
    if config.distinct_floor is not None and distinct < config.distinct_floor * before["held_out_distinct_2"]:
        yield Verdict("distinct_2", distinct, f"of the pairs of words in all answers {distinct:.1%} are different ones "
                                              f"in place of {before['held_out_distinct_2']:.1%} (distinct_floor)")
    if config.gold_drop is not None and "held_out_gold" in now:
        yield from _fallen_gold(config.gold_drop, before, curves)


def _fallen_gold(drop: float, before: dict[str, float], curves: Curves) -> Iterator[Verdict]:
    """Whether the gold reward is below its highest point by more than `drop`, and the reward above that of then. The
    instruct model's own are those of step 0."""
    gold, rewards = ([(0, before[name]), *finite(curves[name])] for name in ("held_out_gold", "held_out_reward"))
    reward = dict(rewards)
    step, highest = max(gold, key=lambda point: point[1])
    newest, value = gold[-1]
    if highest - value > drop and reward[newest] > reward[step]:
        yield Verdict("gold", value, f"the gold reward fell from {highest:.3g} at step {step} to {value:.3g} while the "
                                     f"reward rose from {reward[step]:.3g} to {reward[newest]:.3g} (gold_drop)")
