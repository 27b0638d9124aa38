"""The code that a stage runs, as digests: of every function and class of the modules that its own module reaches.

Source is compared as syntax trees without docstrings, so that a comment or a line break changes nothing and a formula
does; the digests are the same on every version of Python. Of a config only the functions that compute count: the values
of its fields are part of the key already, and validators accept or refuse but change no value.
"""

import ast
import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from threading import Lock

CORE = "genai_core"
ROOT = Path(__file__).parents[2]
REST = "(module)"
"""What a module says outside its functions and classes: its constants, and which names it imports from where."""
_NOT_CODE = ("type_comment", "type_ignores", "type_params", "kind", "ctx")
"""Fields of syntax trees that say nothing of what is computed, or that some versions of Python do not have."""

Digests = dict[str, dict[str, str]]

_parsing = Lock()
"""One thread at a time: Python 3.11 raises SystemError where two parse at once (its issue 106905)."""


def code_fingerprint(module: str) -> Digests:
    """For each module that `module` reaches, itself included: digests of its functions, its classes and the rest.

    Modules count that belong to the core or to the package of `module`.
    """
    reached: Digests = {}
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        with _parsing:
            digests, imports = _read(name)
        if digests:
            reached[name] = digests
        waiting.extend(imports)
    return dict(sorted(reached.items()))


def _path(name: str) -> Path | None:
    base = ROOT.joinpath(*name.split("."))
    if name.split(".")[0] != CORE:
        package, *rest = name.split(".")
        spec = find_spec(package)
        if spec is None:
            return None
        if not spec.submodule_search_locations:      # a package of one file
            return Path(spec.origin) if spec.origin and not rest else None
        base = Path(next(iter(spec.submodule_search_locations))).joinpath(*rest)
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@cache
def _read(name: str) -> tuple[dict[str, str], tuple[str, ...]]:
    path = _path(name)
    if path is None:
        raise ModuleNotFoundError(f"{name} has no source under {ROOT}")
    source = path.read_text(encoding="utf-8")
    config = name.startswith(f"{CORE}.config") or name.endswith(".config")
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    imports = _imports(ast.parse(source), {CORE, name.split(".")[0]}, package)
    return module_digests(source, config), tuple(sorted(imports))


def module_digests(source: str, config: bool = False) -> dict[str, str]:
    """Digest of each function and class of a module, and of the rest; of a config only of functions that compute."""
    found: dict[str, str] = {}
    rest = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not config:
            found[node.name] = _digest(_dump(node))
        elif config:
            found |= _computing(node)
            rest += [_dump(node)] if _is_constant(node) else []
        elif not _is_docstring(node):
            rest.append(_dump(node))
    if rest:
        imports = sorted(text for text in rest if text.startswith("Import"))      # their order says nothing
        found[REST] = _digest("\n".join([*imports, *(text for text in rest if text not in imports)]))
    return found


def _is_constant(node: ast.stmt) -> bool:
    """Whether a statement of a config module gives a constant its value, which a stage may compute with."""
    return isinstance(node, ast.Assign) and all(isinstance(target, ast.Name) and target.id.isupper()
                                                for target in node.targets)


def _computing(node: ast.stmt) -> dict[str, str]:
    """Functions of a config module, and methods of its classes that are no validators."""
    if isinstance(node, ast.FunctionDef):
        return {node.name: _digest(_dump(node))}
    if isinstance(node, ast.ClassDef):
        return {f"{node.name}.{part.name}": _digest(_dump(part)) for part in node.body
                if isinstance(part, ast.FunctionDef)
                and not any("validator" in ast.unparse(decorator) for decorator in part.decorator_list)}
    return {}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _dump(node: object) -> str:
    """A syntax tree as text. `ast.dump` differs between versions of Python: fields come and go, empty ones are shown or
    not, and texts that stand side by side in an f-string are one constant or several."""
    if node is None:
        return "(nothing)"
    if isinstance(node, ast.Constant):
        return ascii(node.value)
    if isinstance(node, ast.JoinedStr):
        return f"JoinedStr({_joined(node.values)})"
    if isinstance(node, ast.AST):
        fields = [(name, _without_docstring(node, name, value)) for name, value in ast.iter_fields(node)
                  if name not in _NOT_CODE]
        inside = ", ".join(f"{name}={_dump(value)}" for name, value in fields if value is not None and value != [])
        return f"{type(node).__name__}({inside})"
    if isinstance(node, list):
        return f"[{', '.join(map(_dump, node))}]"
    return repr(node)


def _joined(values: list[ast.expr]) -> str:
    parts: list[str] = []
    text = ""
    for value in values:
        if isinstance(value, ast.Constant):
            text += str(value.value)
            continue
        if text:
            parts.append(ascii(text))
        text = ""
        parts.append(_dump(value))
    return ", ".join([*parts, ascii(text)] if text else parts)


def _without_docstring(node: ast.AST, field: str, value: object) -> object:
    """The body of a function or class without texts that stand by themselves."""
    if field == "body" and isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return [part for part in node.body if not _is_docstring(part)]
    return value


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _imports(tree: ast.Module, packages: set[str], package: str) -> set[str]:
    """Modules of `packages` that are imported anywhere in a module, inside functions too, but not for type checkers."""
    found: set[str] = set()
    for node in _running(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names if alias.name.split(".")[0] in packages)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[:len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*above, *(node.module or "").split(".")]).strip(".")
            if module.split(".")[0] not in packages:
                continue
            inner = {alias.name: _path(f"{module}.{alias.name}") for alias in node.names}
            found.update(f"{module}.{name}" for name, path in inner.items() if path)
            if not all(inner.values()):
                found.add(module)
    return found


def _running(node: ast.AST) -> list[ast.AST]:
    """Every node but those under `if TYPE_CHECKING`."""
    if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
        return [inner for child in node.orelse for inner in _running(child)]
    return [node, *(inner for child in ast.iter_child_nodes(node) for inner in _running(child))]

