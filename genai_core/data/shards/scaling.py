"""How long the data stages take, and what they need, at any amount of text: arithmetic from measured speeds.

`python -m genai_core.data.shards.scaling` prints the table of docs/scaling.md.
"""

from dataclasses import dataclass

from genai_core.data.clean.runs import key_ranges
from genai_core.data.shards.files import SHARD_CHARACTERS

TERABYTE = 10**12

# measured on one core of two, x86-64, on the text of benchmarks/data_speed.py (docs/benchmarks.md)
COLLECT_BYTES_A_SECOND = 35e6
"""Text that one process reads, splits and writes: one source is one process."""
CLEAN_BYTES_A_SECOND = 5e6
"""Text that one core repairs, judges, compares and writes."""
ENCODE_BYTES_A_SECOND = 80e6
"""Text that one core turns into ids."""
TRAIN_TOKENIZER_SECONDS = 10.0
"""Of the sample of `tokenize.max_characters`, whatever the amount of text."""

COMPRESSED = 0.4
"""Bytes of Parquet (zstd) for each byte of text."""
REPAIRED = 0.6
"""Bytes of the repaired text between two passes (lz4) for each byte of text."""
SHINGLES = 0.7
"""Bytes of shingles for each byte of text: four for each word."""
BYTES_A_TOKEN = 4.0
BYTES_A_DOCUMENT = 3000
"""Text of a document of the web."""
SHARD_BYTES = SHARD_CHARACTERS
BANDS = 16
RUN_BYTES = 16
"""Of a key and a row in a sorted run."""
HELD_OUT_RUNS = 1.4
"""Bytes of the sorted runs of held-out words for each byte of held-out text."""
BYTES_IN_MEMORY_A_SECOND = 2e9
"""Sorted runs that one core searches, from the page cache."""
SECONDS_TO_OPEN = 50e-6
"""Of a core, to find a range of keys in one run."""
WORKER_MEMORY = 0.4e9


@dataclass(frozen=True)
class Estimate:
    """What the data stages take at one amount of text on some equal machines."""

    text_bytes: float
    machines: int
    cores: int
    """Of each machine."""
    collect_hours: float
    clean_hours: float
    encode_hours: float
    held_out_hours: float
    """Looking training text up in the runs of held-out words, once a shard: part of cleaning, and the part that grows
    with the square of the text if a fixed share of it is held out."""
    open_hours: float
    """Opening every shard's runs for each range of keys and each band: part of cleaning, likewise."""
    scratch_bytes: float
    """Most that lies in the scratch folder of `clean`."""
    moved_bytes: float
    """Read and written by all stages, over the network where the shards are not on the machine."""
    output_bytes: float
    """Token files."""
    documents: float
    shards: float
    memory: float
    """Of each machine, in bytes."""
    repeated_bytes: float
    """Addresses of near duplicates that each process of a band's join holds, if a fifth of the documents are some."""

    @property
    def hours(self) -> float:
        return self.collect_hours + self.all_clean_hours + self.encode_hours

    @property
    def hours_of(self) -> dict[str, float]:
        """By stage."""
        return {"collect": self.collect_hours, "clean": self.all_clean_hours, "tokenize": self.encode_hours}

    @property
    def all_clean_hours(self) -> float:
        """Of the stage `clean`, its joins included."""
        return self.clean_hours + self.held_out_hours + self.open_hours



def estimate(text_bytes: float, machines: int = 1, cores: int = 64, sources: int = 1,
             held_out_bytes: float = 1e8) -> Estimate:
    """Hours, bytes and memory of the data stages for so much text.

    Collecting takes a process for each source, so that no more of them than `sources` help; the other stages take all
    cores. `held_out_bytes` is held-out text, which a figure needs no more of where there is more to train on.
    Raises ValueError unless all arguments are positive.
    """
    if min(text_bytes, machines, cores, sources) <= 0:
        raise ValueError("text, machines, cores and sources must be positive")
    workers = machines * cores
    documents = text_bytes / BYTES_A_DOCUMENT
    bands = documents * BANDS * RUN_BYTES
    scratch = text_bytes * (REPAIRED + SHINGLES) + bands + documents * RUN_BYTES
    shards = text_bytes / SHARD_BYTES
    ranges = len(key_ranges(int(documents)))
    tokens = text_bytes / BYTES_A_TOKEN
    output = tokens * 4
    # collect writes, clean reads it, writes and reads its scratch twice, and writes; tokenize reads and writes
    moved = text_bytes * COMPRESSED * 4 + scratch * 3 + output
    repeated = documents / 5 * 8
    return Estimate(
        text_bytes, machines, cores,
        collect_hours=text_bytes / COLLECT_BYTES_A_SECOND / min(workers, sources) / 3600,
        clean_hours=text_bytes / CLEAN_BYTES_A_SECOND / workers / 3600,
        held_out_hours=shards * held_out_bytes * HELD_OUT_RUNS / BYTES_IN_MEMORY_A_SECOND / workers / 3600,
        open_hours=shards * ranges * BANDS * SECONDS_TO_OPEN / workers / 3600,
        encode_hours=(text_bytes / ENCODE_BYTES_A_SECOND / workers + TRAIN_TOKENIZER_SECONDS) / 3600,
        scratch_bytes=scratch, moved_bytes=moved, output_bytes=output, documents=documents,
        shards=shards, memory=cores * (WORKER_MEMORY + repeated), repeated_bytes=repeated)


def table() -> str:
    """The table of docs/scaling.md."""
    columns = ("text", "machines of 64 cores", "collect, 64 sources", "clean", "of that, held-out look-ups",
               "of that, opening runs", "encode", "scratch", "moved", "token files", "shards", "memory a machine")
    lines = [f"| {' | '.join(columns)} |", "|" + "---:|" * len(columns)]
    for size, machines in ((TERABYTE, 1), (TERABYTE, 8), (15 * TERABYTE, 8), (15 * TERABYTE, 64)):
        each = estimate(size, machines, sources=64)
        hours = (each.collect_hours, each.all_clean_hours, each.held_out_hours, each.open_hours, each.encode_hours)
        amounts = (each.scratch_bytes, each.moved_bytes, each.output_bytes)
        cells = [f"{size / TERABYTE:.0f} TB", str(machines), *(f"{value:.2f} h" for value in hours),
                 *(f"{value / TERABYTE:.1f} TB" for value in amounts), f"{each.shards:,.0f}",
                 f"{each.memory / 2**30:,.0f} GiB"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")
