"""How to run a pipeline, as opposed to what it makes."""

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from genai_core.config.base import Config

_SCHEDULER = re.compile(r"(tcp|tls)://([\w.-]+|\[[0-9A-Fa-f:.]+\]):\d{1,5}")


class Runtime(Config):
    """How to run, as opposed to what: no part of any cache key."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to train; `auto` takes the GPU when there is one, `mps` is that of a Mac."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Whether to use torch.compile; `auto` does for runs long enough to earn the compilation back."""
    deterministic: Literal["auto", "on", "off"] = "auto"
    """Whether training gives the same bytes each time; `auto` does on a CPU, where it costs nothing."""
    recompute_activations: bool = False
    """Whether the backward pass makes the activations of each block again: less memory, a third more arithmetic."""
    processes: int = Field(default=1, ge=1, le=1024)
    """Ranks of a training stage: processes that train one model together, each on a GPU of its own where there are
    some. The result is that of one, up to rounding."""
    hosts: int = Field(default=1, ge=1, le=1024)
    """Machines that those ranks are shared out over; on each but the one that runs the flow, `genai join` waits."""
    rendezvous: str = ""
    """Address of this machine at which the hosts meet, e.g. `gpu-1:29400`."""
    meet_seconds: float = Field(default=300.0, gt=0)
    """How long hosts wait for each other."""
    silent_seconds: float = Field(default=60.0, ge=30)
    """A machine that takes part in a training, or makes a stage elsewhere, is lost when it gives no sign of life for so
    long."""
    placement: dict[str, str] = Field(default_factory=dict)
    """Stages that a worker of a Prefect work pool makes, on another machine: `pretrain: genai-gpu`."""
    stages_at_once: int = Field(default=1, ge=1, le=64)
    """Stages that do not need each other, such as the models of a family, run side by side, so many at most: each in a
    process of its own, and on a GPU of its own where there are several."""
    shard_above: int = Field(default=1_000_000_000, ge=0)
    """Parameters above which each rank has a part of the model and of the optimizer's state (FSDP2); up to it, a copy
    (DDP)."""
    workers: int = Field(default=0, ge=0, le=1024)
    """Processes of the data stages, for each some 0.3 GB of memory; 0 for one a core. What they write is the same."""
    data_cluster: str = ""
    """Address of a Dask scheduler, e.g. `tcp://scheduler:8786`, whose workers run the data stages; empty for processes
    of this machine. What they write is the same (docs/scaling.md)."""
    checkpoint_seconds: float = Field(default=30.0, gt=0)
    """Time between two checkpoints of a training stage, in seconds."""
    stall_steps: int = Field(default=500, ge=0)
    """Somebody is told when the loss reaches no new low in so many steps, or is not finite; 0 for never."""
    power_watts: float = Field(default=0.0, ge=0)
    """Power draw of the machine under load, in watts, for the estimate of energy; 0 assumes 10 W for each busy core."""
    price_per_hour: float = Field(default=0.0, ge=0)
    """Price of an hour of the machine."""
    currency: str = "EUR"
    """Currency of the price."""

    @model_validator(mode="after")
    def one_kind_of_processes(self) -> "Runtime":
        if self.processes > 1 and self.stages_at_once > 1:
            raise ValueError(f"processes {self.processes} and stages_at_once {self.stages_at_once}: stages on several "
                             "ranks run one after the other; leave one of the two at 1")
        if self.processes % self.hosts:
            raise ValueError(f"processes {self.processes} is not a multiple of hosts {self.hosts}")
        if self.hosts > 1 and not self.rendezvous:
            raise ValueError(f"hosts {self.hosts}: where they meet is not said; set rendezvous to HOST:PORT of the "
                             "machine that runs the flow")
        return self

    @field_validator("data_cluster")
    @classmethod
    def names_a_scheduler(cls, address: str) -> str:
        if "@" in address:
            raise ValueError("an address with a user or a password is kept in records; Dask knows its peers by TLS "
                             "certificates, see docs/scaling.md")
        if address and not _SCHEDULER.fullmatch(address):
            raise ValueError("not the address of a Dask scheduler; write it as tcp://HOST:PORT or tls://HOST:PORT")
        return address
