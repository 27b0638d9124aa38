"""The same cleaning by datatrove, for data_speed.py: run by the Python of an environment that has it.

    python benchmarks/datatrove_clean.py TEXT.jsonl WORKERS

Repair, masking, Gopher's rules of quality and repetition with our bounds, near duplicates by MinHash with as many bands
and rows as ours. It has no exact duplicates, no decontamination and no true similarity. Prints the seconds as JSON.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import (
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter
from datatrove.pipeline.formatters import FTFYFormatter, PIIFormatter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.hashing import HashConfig

BANDS, ROWS = 16, 8


def clean(source: Path, workers: int, folder: Path) -> None:
    lines = source.read_text(encoding="utf-8").splitlines(keepends=True)
    parts = 2 * workers
    (folder / "in").mkdir()
    for number in range(parts):
        (folder / "in" / f"{number}.jsonl").write_text("".join(lines[number::parts]), encoding="utf-8")
    config = MinhashConfig(hash_config=HashConfig(precision=64), num_buckets=BANDS, hashes_per_bucket=ROWS)
    place = {name: str(folder / name) for name in ("in", "filtered", "signatures", "buckets", "removed", "out")}
    steps = [
        (parts, [JsonlReader(place["in"]), FTFYFormatter(), PIIFormatter(),
                 GopherQualityFilter(min_doc_words=5, min_stop_words=1), GopherRepetitionFilter(),
                 JsonlWriter(place["filtered"])]),
        (parts, [JsonlReader(place["filtered"]), MinhashDedupSignature(place["signatures"], config=config)]),
        (BANDS, [MinhashDedupBuckets(place["signatures"], place["buckets"], config=config)]),
        (1, [MinhashDedupCluster(place["buckets"], place["removed"], config=config)]),
        (parts, [JsonlReader(place["filtered"]), MinhashDedupFilter(place["removed"]), JsonlWriter(place["out"])]),
    ]
    for number, (tasks, step) in enumerate(steps):
        LocalPipelineExecutor(step, tasks=tasks, workers=workers, logging_dir=str(folder / f"log-{number}")).run()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        began = time.perf_counter()
        clean(Path(sys.argv[1]), int(sys.argv[2]), Path(scratch))
        print(json.dumps({"seconds": time.perf_counter() - began}))
