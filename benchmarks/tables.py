"""Where benchmarks put their tables, and what became worse since the last one on the same machine."""

import json
import platform
import shlex
import sys
from datetime import date
from pathlib import Path

import psutil
import torch

WORSE = 0.05
"""Share by which a figure may fall behind the last one before that is said."""


def put_between_marks(path: Path, name: str, heading: str, text: str) -> None:
    """Put a text between the marks of a benchmark in a file, which may have those of others; under a heading at its end
    where it has none yet."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    old = path.read_text(encoding="utf-8") if path.is_file() else "# Benchmarks\n"
    if begin not in old:
        old = f"{old}\n## {heading}\n\n{begin}\n{end}\n"
    before, _, rest = old.partition(begin)
    path.write_text(f"{before}{begin}\n{text}{end}{rest.partition(end)[2]}", encoding="utf-8")


def machine() -> str:
    """What tells this machine from others whose figures do not compare."""
    cpu = next((line.partition(":")[2].strip() for line in _lines(Path("/proc/cpuinfo"))
                if line.startswith("model name")), platform.machine())
    units = [name for name, there in (("AMX", torch.cpu._is_amx_tile_supported()),
                                      ("bfloat16 units", torch.cpu._is_avx512_bf16_supported())) if there]
    gpu = [torch.cuda.get_device_name()] if torch.cuda.is_available() else []
    return ", ".join([cpu, f"{psutil.cpu_count()} cores", torch.backends.cpu.get_cpu_capability(),
                      *units, *gpu])


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []


def keep_and_compare(file: Path, benchmark: str, figures: dict[str, float]) -> str:
    """Keep figures, of which more is better, as the last ones of this machine in a JSON file of all benchmarks, with
    the day and the command; what became worse by more than WORSE, as sentences for the table."""
    known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    of_machine = known.setdefault(benchmark, {}).setdefault(machine(), {})
    worse = [f"{name}: {value:,.1f}, {1 - value / of_machine[name]:.0%} less than the {of_machine[name]:,.1f} of the "
             "last table on such a machine." for name, value in figures.items()
             if name in of_machine and value < (1 - WORSE) * of_machine[name]]
    of_machine |= {name: round(value, 4) for name, value in figures.items()}
    of_machine |= {"date": date.today().isoformat(), "command": shlex.join([Path(sys.argv[0]).stem, *sys.argv[1:]])}
    file.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return "".join(f"\n* {sentence}" for sentence in worse) + ("\n" if worse else "")
