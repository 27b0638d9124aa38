"""Addresses of remote files in a config: which are taken, and how one is shown where a secret must not be.

A config is part of keys and manifests, so that an address with a secret is refused where it is declared; what is shown
of any other leaves out what could hold one.
"""

import re
from urllib.parse import parse_qsl, unquote, urlsplit

SCHEMES = ("s3", "gs", "https")
_REMOTE = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_QUERY = re.compile(r"(://[^\s?#'\"]*)[?#][^\s'\"]*")
_USER = re.compile(r"://[^\s/@'\"]*@")
_SECRET = re.compile(r"sig|token|secret|passw|pwd|key|credential|auth|session|policy", re.IGNORECASE)
REGISTERED = re.compile(r"models:/(?P<name>[^/@]+)(/(?P<version>\d+)|@(?P<alias>[^/]+))(/(?P<inside>.+))?")
"""A registered version of MLflow, and what is meant of its files: models:/NAME/VERSION/FILE, models:/NAME@ALIAS."""
_FEEDBACK = re.compile(r"feedback:/.*\S")
HOW_TO_LOG_IN = "give credentials by the environment (AWS_ACCESS_KEY_ID …), an AWS profile or ~/.netrc"


def is_remote(path: str) -> bool:
    return bool(_REMOTE.match(path))


def is_in_mlflow(path: str) -> bool:
    return path.startswith(("models:/", "feedback:/"))


def check_in_mlflow(path: str) -> None:
    """Raise ValueError for what names no version and no experiment, and for one that leads out of the version."""
    if path.startswith("feedback:/"):
        if not _FEEDBACK.fullmatch(path):
            raise ValueError(f"{path}: write it as feedback:/EXPERIMENT")
        return
    parts = REGISTERED.fullmatch(path)
    if not parts:
        raise ValueError(f"{path}: write it as models:/NAME/VERSION or models:/NAME@ALIAS, and then perhaps /FILE")
    inside = parts["inside"] or ""
    leads_away = bool(inside) and not {"", ".", ".."}.isdisjoint(inside.split("/"))
    if leads_away or any(sign in inside for sign in "\\%?#*["):
        raise ValueError(f"{path}: {inside!r} is no plain path of a file or folder of the version")


def shown(text: str) -> str:
    """`text` with every address in it free of its query, its fragment and its user."""
    return _QUERY.sub(r"\1", _USER.sub("://", text))


def check_address(address: str) -> None:
    """Raise ValueError for an address of another scheme, one that leads elsewhere, and one that holds a secret.

    http is taken of this machine alone: on a network anybody could change what it brings.
    """
    scheme = address.partition("://")[0].lower()
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
    except ValueError:
        raise ValueError("an address that cannot be read") from None
    if "@" in parts.netloc:
        raise ValueError(f"an address with a user or a password is kept in manifests; {HOW_TO_LOG_IN}")
    plain = scheme == "http" and host in ("127.0.0.1", "localhost")
    if scheme not in SCHEMES and not plain:
        raise ValueError(f"{shown(address)}: an address starts with {', '.join(f'{known}://' for known in SCHEMES)}")
    if not host or "\\" in address or "::" in address or ".." in unquote(parts.path).split("/"):
        raise ValueError(f"{shown(address)}: not an address of a file")
    query = address.partition("?")[2].partition("#")[0]
    if any(_SECRET.search(name) for name, _ in parse_qsl(query, keep_blank_values=True)) or "#" in address:
        raise ValueError(f"{shown(address)}: the query looks like a signature or a token, and a config is kept in "
                         f"manifests; {HOW_TO_LOG_IN}")
    if scheme.startswith("http") and any(sign in parts.path for sign in "*["):
        raise ValueError(f"{shown(address)}: a web server lists no files; name each one")
