"""A digest of the code that a stage runs: the modules of the core that its own module reaches by imports.

Source is compared as syntax trees without docstrings, so that a comment or a line break changes nothing and a formula
does. `genai_core.config` is left out: the values of a config are part of the key already. `genai_core.reporter` is left
out because what it is told reaches no artifact.
"""

import ast
import hashlib
from functools import cache
from pathlib import Path

PACKAGE = "genai_core"
ROOT = Path(__file__).parents[2]
IGNORED = ("genai_core.config", "genai_core.reporter")


def code_fingerprint(module: str) -> dict[str, str]:
    """Digest of each module that `module` reaches, itself included."""
    reached: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in reached or _ignored(name):
            continue
        digest, imports = _read(name)
        reached[name] = digest
        waiting.extend(imports)
    return dict(sorted(reached.items()))


def _ignored(name: str) -> bool:
    return any(name == ignored or name.startswith(f"{ignored}.") for ignored in IGNORED)


def _path(name: str) -> Path | None:
    base = ROOT.joinpath(*name.split("."))
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@cache
def _read(name: str) -> tuple[str, tuple[str, ...]]:
    path = _path(name)
    if path is None:
        raise ModuleNotFoundError(f"{name} has no source under {ROOT}")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imports = tuple(sorted(_imports(tree)))
    _drop_docstrings(tree)
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:16], imports


def _imports(tree: ast.Module) -> set[str]:
    """Modules of the core that are imported anywhere in a module, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names if alias.name.split(".")[0] == PACKAGE)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == PACKAGE:
            if _path(f"{node.module}.{node.names[0].name}"):
                found.update(f"{node.module}.{alias.name}" for alias in node.names)
            else:
                found.add(node.module)
    return found


def _drop_docstrings(tree: ast.Module) -> None:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [part for part in node.body
                         if not (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant)
                                 and isinstance(part.value.value, str))] or [ast.Pass()]
