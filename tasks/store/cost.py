"""What making an artifact cost: time, arithmetic, energy, money."""

from dataclasses import dataclass
from typing import Any

from genai_core.config.runtime import Runtime

WATTS_OF_A_BUSY_CORE = 10.0
"""Assumed where `runtime.power_watts` does not say: server processors draw 200 to 400 W with 24 to 64 cores."""


@dataclass(frozen=True)
class Cost:
    seconds: float = 0.0
    flops: float = 0.0
    energy_watt_hours: float = 0.0
    """An estimate: power by setting or by assumption, times time."""
    money: float = 0.0
    currency: str = ""

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.seconds + other.seconds, self.flops + other.flops,
                    self.energy_watt_hours + other.energy_watt_hours, self.money + other.money,
                    self.currency or other.currency)

    def __str__(self) -> str:
        money = f", {self.money:.4f} {self.currency}" if self.money else ""
        flops = f", {self.flops:.3g} FLOP" if self.flops else ""
        return f"{self.seconds:.1f} s{flops}, about {self.energy_watt_hours:.2f} Wh{money}"


def measured_cost(runtime: Runtime, seconds: float, cpu_seconds: float, flops: float) -> Cost:
    """The cost of one execution; energy is the machines' power times the time, or 10 W for each busy core."""
    watts = runtime.hosts * runtime.power_watts
    joules = watts * seconds if watts else WATTS_OF_A_BUSY_CORE * cpu_seconds
    return Cost(seconds, flops, joules / 3600, runtime.hosts * runtime.price_per_hour * seconds / 3600,
                runtime.currency)


def recorded_cost(record: dict[str, Any]) -> Cost:
    """The cost in an artifact's record; zero for an artifact that was fetched."""
    return Cost(**record.get("cost", {}))
