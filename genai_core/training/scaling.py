"""What a training takes on GPUs that are not at hand: memory, communication, time, energy and money, by arithmetic.

`python -m genai_core.training.scaling` prints the tables of docs/training-scale.md. All rests on two assumptions, the
share of a GPU's peak that products reach while nothing waits (`UTILISATION`) and the share of a link's bandwidth
(`LINK_SHARE`); what others have published is how far they hold.
"""

import re
from dataclasses import dataclass

from genai_core.errors import InputError
from genai_core.models.transformer import TransformerConfig, parameter_count, training_flops_per_token
from genai_core.training.estimate import activation_bytes
from genai_core.training.optimizers import WHOLE_AT_ONCE

UTILISATION = 0.42
"""Share of the peak of bfloat16 that a step's arithmetic reaches: the middle of what is published."""
LINK_SHARE = 0.7
"""Share of a link's bandwidth that collective operations reach."""
NETWORK = 50e9
"""Bytes a second and GPU between machines: 400 Gb/s."""
GPUS_OF_A_NODE = 8
BACKWARD = 2 / 3
"""Share of a step's arithmetic that gradients are exchanged beside."""
RESERVED = 0.92
"""Share of a GPU's memory that training may fill: the rest is the library's own, and torn into pieces."""


@dataclass(frozen=True)
class Gpu:
    """A GPU as its data sheet has it."""

    flops: float
    """Products in bfloat16, dense, a second."""
    memory: float
    link: float
    """Bytes a second to the other GPUs of its machine, one way."""
    watts: float
    """Of the GPU and its share of the machine."""


GPUS = {"A100": Gpu(312e12, 80e9, 300e9, 812), "H100": Gpu(989e12, 80e9, 450e9, 1275),
        "H200": Gpu(989e12, 141e9, 450e9, 1275), "B200": Gpu(2250e12, 180e9, 900e9, 1790)}


@dataclass(frozen=True)
class Cluster:
    """Machines with equal GPUs."""

    nodes: int
    gpus: int
    """Of each machine."""
    kind: Gpu

    @classmethod
    def named(cls, text: str) -> "Cluster":
        """`8xH100` is a machine of eight, or several of eight where there are more; `4x2xH100` is four of two. Raises
        InputError."""
        found = re.fullmatch(r"(?:(\d+)x)?(\d+)x(\w+)", text.replace(" ", ""))
        if not found or found[3].upper() not in GPUS or 0 in (int(found[1] or 1), int(found[2])):
            raise InputError(f"--on {text}: not a number and a kind of GPUs; write it as 8xH100 or, for 4 machines of "
                             f"2, as 4x2xH100; kinds: {', '.join(GPUS)}")
        nodes, gpus, kind = int(found[1] or 1), int(found[2]), GPUS[found[3].upper()]
        if not found[1] and gpus > GPUS_OF_A_NODE:
            if gpus % GPUS_OF_A_NODE:
                raise InputError(f"--on {text}: {gpus} GPUs are not whole machines of {GPUS_OF_A_NODE}; write how many "
                                 f"machines, as 3x4x{found[3]}")
            nodes, gpus = gpus // GPUS_OF_A_NODE, GPUS_OF_A_NODE
        return cls(nodes, gpus, kind)

    @property
    def count(self) -> int:
        return self.nodes * self.gpus

    @property
    def bandwidth(self) -> float:
        """Bytes a second that each GPU sends in a ring through all: between machines the GPUs' networks add up."""
        slowest = self.kind.link if self.nodes == 1 else min(self.kind.link, NETWORK * self.gpus)
        return slowest * LINK_SHARE


@dataclass(frozen=True)
class Training:
    """A training on a cluster."""

    sharded: bool
    """Whether each GPU has a part of the model."""
    memory: float
    """Bytes of each GPU."""
    sent: float
    """Bytes that each GPU sends in a step."""
    step_seconds: float
    utilisation: float
    """Share of the peak (MFU), with all that waits."""
    hours: float
    energy_kilowatt_hours: float
    fits: bool


def training_on(cluster: Cluster, shape: TransformerConfig, *, rows: int, length: int, tokens: float,
                accumulation: int = 1, shard_above: int = 10**9, recompute: bool = False, muon: bool = True
                ) -> Training:
    """A training of `tokens` in steps of `rows` sequences. Raises InputError where the GPUs do not divide a micro-batch
    evenly."""
    count, parameters = cluster.count, parameter_count(shape)
    if rows % (accumulation * count):
        raise InputError(f"{count} GPUs and {accumulation} micro-batches do not divide {rows} sequences evenly; take a "
                         f"batch of {-(-rows // (accumulation * count)) * accumulation * count}")
    sharded = count > 1 and parameters > shard_above
    in_micro_batch = rows // accumulation // count * length
    memory = 16 * parameters / (count if sharded else 1)
    memory += activation_bytes(shape, in_micro_batch, length, recompute)
    embedding = shape.vocab_size * shape.hidden_size
    block = (parameters - embedding) / shape.num_hidden_layers
    if sharded:      # two blocks and the embedding whole, and their gradients until they are given away
        memory += 8 * (2 * block + embedding)
    matrices = (parameters - embedding) if muon else 0
    if sharded and muon:      # some matrices whole, their update and what the iterations make
        memory += 3 * 4 * WHOLE_AT_ONCE * shape.hidden_size * shape.intermediate_size
    around = (count - 1) / count
    beside = around * 4 * parameters * (3 * accumulation if sharded else 2)      # sent while it computes
    after = around * 4 * matrices * (2 if sharded else 1)
    flops = rows * length * training_flops_per_token(shape, length)
    arithmetic = flops * (4 / 3 if recompute else 1) / count / cluster.kind.flops / UTILISATION
    least = min(shape.hidden_size, shape.intermediate_size)
    iterations = 5 * 6 * least * matrices / count / cluster.kind.flops / UTILISATION if muon else 0.0
    hidden = arithmetic * (1.0 if sharded else BACKWARD)
    seconds = arithmetic + iterations + max(0.0, beside / cluster.bandwidth - hidden) + after / cluster.bandwidth
    hours = seconds * tokens / (rows * length) / 3600
    return Training(sharded, memory, beside + after, seconds, flops / count / cluster.kind.flops / seconds, hours,
                    hours * count * cluster.kind.watts / 1000, memory < RESERVED * cluster.kind.memory)


def _shape(layers: int, hidden: int, feed_forward: int, heads: int, groups: int, vocabulary: int) -> TransformerConfig:
    return TransformerConfig(vocab_size=vocabulary, hidden_size=hidden, num_hidden_layers=layers,
                             intermediate_size=feed_forward, num_attention_heads=heads, num_key_value_heads=groups,
                             head_dim=hidden // heads, max_position_embeddings=8192)


SHAPES = {"1B": _shape(22, 2048, 5632, 32, 4, 32_000), "7B": _shape(32, 4096, 11_008, 32, 32, 32_000),
          "70B": _shape(80, 8192, 28_672, 64, 8, 128_256)}
"""Models of the tables, in the proportions of Llama."""

PUBLISHED = (
    # name, cluster, shape, rows, length, accumulation, tokens a second of a GPU
    ("llm.c, 124M", "8xA100", _shape(12, 768, 2048, 12, 12, 50_304), 512, 1024, 1, 218_000),
    ("llm.c, 124M", "8xH100", _shape(12, 768, 2048, 12, 12, 50_304), 512, 1024, 1, 468_000),
    ("llm.c, 1.6B", "8xH100", _shape(48, 1600, 4267, 25, 25, 50_304), 1024, 1024, 8, 46_800),
    ("nanoGPT, 124M", "8xA100", _shape(12, 768, 2048, 12, 12, 50_304), 480, 1024, 5, 107_000),
    ("modded-nanogpt #9, 124M", "8xH100", _shape(12, 768, 2048, 12, 12, 50_304), 512, 1024, 1, 426_000),
    ("torchtitan, Llama 3.1 8B", "8xH100", _shape(32, 4096, 14_336, 32, 8, 128_256), 8, 8192, 1, 6_667))
"""Speeds that others have published, each of training by AdamW or Muon in bfloat16."""


def table() -> str:
    """Models of three sizes on 8 to 1,024 GPUs."""
    lines = ["| model | GPUs | kept | memory a GPU | sent a step and GPU | step | MFU | hours | MWh | at 3 an hour |",
             "|---|---:|---|---:|---:|---:|---:|---:|---:|---:|"]
    for name, length, rows in (("1B", 2048, 2048), ("7B", 4096, 1024), ("70B", 4096, 1024)):
        for count in (8, 64, 256, 1024):
            each = _best(Cluster.named(f"{count}xH100"), SHAPES[name], rows, length)
            cells = [name, f"{count:,}", "in parts" if each.sharded else "whole",
                     f"{each.memory / 1e9:,.0f} GB" + ("" if each.fits else ", too much"), f"{each.sent / 1e9:,.0f} GB",
                     f"{each.step_seconds:,.2f} s", f"{each.utilisation:.0%}", f"{each.hours:,.1f}",
                     f"{each.energy_kilowatt_hours / 1000:,.1f}", f"{3 * count * each.hours:,.0f}"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _best(cluster: Cluster, shape: TransformerConfig, rows: int, length: int) -> Training:
    """The fastest way that fits: with how many micro-batches, and whether activations are made again; where none does,
    the one with the least memory. Of twenty tokens a parameter (Hoffmann et al. 2022)."""
    tokens = 20.0 * parameter_count(shape)
    ways = [training_on(cluster, shape, rows=rows, length=length, tokens=tokens, accumulation=accumulation,
                        recompute=recompute)
            for recompute in (False, True) for accumulation in (1, 2, 4, 8, 16, 32, 64, 128)
            if rows % (accumulation * cluster.count) == 0]
    fitting = [way for way in ways if way.fits]
    best = min(fitting, key=lambda way: way.step_seconds) if fitting else min(ways, key=lambda way: way.memory)
    return best


def published_table() -> str:
    """The arithmetic beside published speeds."""
    lines = ["| what | GPUs | published, tokens/s a GPU | by this arithmetic | of it |", "|---|---|---:|---:|---:|"]
    for name, on, shape, rows, length, accumulation, speed in PUBLISHED:
        cluster = Cluster.named(on)
        each = training_on(cluster, shape, rows=rows, length=length, tokens=1, accumulation=accumulation, muon=False)
        ours = rows * length / each.step_seconds / cluster.count
        lines.append(f"| {name} | {on} | {speed:,} | {ours:,.0f} | {ours / speed:.2f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table())
    print(published_table(), end="")
