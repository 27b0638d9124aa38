"""The sources of Python's standard library, as the interpreter that runs this has them: code that needs no download."""

import hashlib
import platform
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LEFT_OUT = frozenset({"test", "tests", "idle_test", "idlelib", "lib2to3", "turtledemo", "ensurepip", "encodings",
                      "pydoc_data", "site-packages", "__pycache__"})
"""Tests, tables, programs with a window, and what is not the library's own."""

VERSION = f"python {platform.python_version()}"


def library_files() -> list[Path]:
    """Modules in the order of their names; those that the build of an interpreter made are left out."""
    root = Path(sysconfig.get_paths()["stdlib"])
    inside = ((file, file.relative_to(root).parts) for file in root.rglob("*.py"))
    return sorted(file for file, parts in inside if not LEFT_OUT.intersection(parts)
                  and not parts[0].startswith("config-") and not file.name.startswith("_sysconfigdata"))


def library_digest() -> str:
    """SHA-256 of the files: another interpreter has another library."""
    digest = hashlib.sha256()
    for file in library_files():
        digest.update(file.read_bytes())
    return digest.hexdigest()


def read_standard_library() -> Iterator[tuple[str, dict[str, Any]]]:
    """One document a module; empty ones are left out."""
    for file in library_files():
        text = file.read_text(encoding="utf-8", errors="replace")
        if text.strip():
            yield "documents", {"text": text}
