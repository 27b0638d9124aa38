"""Where benchmarks put their tables, and what became worse since the last one on the same machine."""

import json
import os
import platform
import shlex
import sys
from datetime import date
from pathlib import Path

import psutil

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


def headline() -> str:
    """The machine, the day, the load of the last minute and the command, for above a table."""
    return f"{machine()}, {date.today().isoformat()}, load {os.getloadavg()[0]:.1f}, `{command()}`"


def machine() -> str:
    """What tells this machine from others whose figures do not compare."""
    # not at the top: the data stages, whose memory is measured, do without it
    import torch

    cpu = next((line.partition(":")[2].strip() for line in _lines(Path("/proc/cpuinfo"))
                if line.startswith("model name")), platform.machine())
    units = [name for name, there in (("AMX", torch.cpu._is_amx_tile_supported()),
                                      ("bfloat16 units", torch.cpu._is_avx512_bf16_supported())) if there]
    gpu = [torch.cuda.get_device_name()] if torch.cuda.is_available() else []
    return ", ".join([cpu, f"{psutil.cpu_count()} cores", torch.backends.cpu.get_cpu_capability(),
                      *units, *gpu])


def command() -> str:
    """The command that runs, without the folder of its file and that of its Python."""
    return shlex.join(["python", "-m", f"benchmarks.{Path(sys.argv[0]).stem}", *sys.argv[1:]])


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []


def keep_and_compare(file: Path, benchmark: str, figures: dict[str, float]) -> str:
    """Keep figures, of which more is better, as the last ones of this machine in a JSON file of all benchmarks, each
    with its day and command; what became worse by more than WORSE, as sentences for the table."""
    known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    last = known.setdefault(benchmark, {}).setdefault(machine(), {})
    worse = [f"{name}: {value:,.4g}, {1 - value / last[name]['value']:.0%} less than the {last[name]['value']:,.4g} of "
             f"{last[name]['date']}." for name, value in figures.items()
             if name in last and value < (1 - WORSE) * last[name]["value"]]
    last |= {name: {"value": round(value, 4), "date": date.today().isoformat(), "command": command()}
             for name, value in figures.items()}
    file.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return "".join(f"\n* {sentence}" for sentence in worse) + ("\n" if worse else "")
