"""Which files of a base are read, wherever it comes from."""

import re
from collections.abc import Collection
from fnmatch import fnmatch

from genai_core.errors import InputError

GGUF = ".gguf"
READ = ("*.json", "*.safetensors", "*.gguf", "*.jinja", "*.txt", "tokenizer.model", "*.md")
"""Files of a base that may be read beside its terms, none of which can hold code: of the hub no others are downloaded.
"""
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.msgpack", "*.h5")


_TERMS = re.compile(r"licen[cs]e|terms|use.?policy|copying|eula|^notice", re.IGNORECASE)
_NO_TEXT = (*READ[:4], "*.py", *PICKLES)


def is_terms(name: str) -> bool:
    """Whether a file of a base says under which terms it comes."""
    return bool(_TERMS.search(name)) and not any(fnmatch(name.lower(), pattern) for pattern in _NO_TEXT)


def is_read(name: str) -> bool:
    """Whether a file at the top of a base may be read."""
    readable = is_terms(name) or any(fnmatch(name, pattern) for pattern in READ)
    return readable and "/" not in name and name != "manifest.json"


def weights_among(names: Collection[str], where: str) -> str:
    """The GGUF file that holds the weights among the files of `where`; empty where safetensors do. Raises InputError
    for none, for several GGUF files, and for pickles."""
    if any(name.endswith(".safetensors") for name in names):
        return ""
    files = sorted(name for name in names if name.endswith(GGUF))
    if len(files) == 1:
        return files[0]
    if files:
        raise InputError(f"base.source: {where} has {len(files)} GGUF files; name one of them "
                         f"({', '.join(f'{where}/{file}' for file in files[:3])} …)")
    if pickles := [name for pattern in PICKLES for name in sorted(names) if fnmatch(name, pattern)]:
        raise InputError(f"base.source: {where} has its weights only as {pickles[0]}, and nothing is unpickled here, "
                         "since a pickle can run code; convert it to model.safetensors first")
    raise InputError(f"base.source: {where} holds no weights (*.safetensors or *.gguf)")
