"""Where benchmarks put their tables."""

from pathlib import Path


def put_between_marks(path: Path, name: str, heading: str, text: str) -> None:
    """Put a text between the marks of a benchmark in a file, which may have those of others; under a heading at its end
    where it has none yet."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    old = path.read_text(encoding="utf-8") if path.is_file() else "# Benchmarks\n"
    if begin not in old:
        old = f"{old}\n## {heading}\n\n{begin}\n{end}\n"
    before, _, rest = old.partition(begin)
    path.write_text(f"{before}{begin}\n{text}{end}{rest.partition(end)[2]}", encoding="utf-8")
