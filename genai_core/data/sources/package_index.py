"""The file of a package, as pip's configured indexes serve it: downloaded, and no step of a build is ever run.

`pip download` asks the build backend of a source distribution for its metadata, which is code of whoever made the
package, even with `--no-deps` and `--no-build-isolation`. `unearth` finds files as pip does and leaves them alone.
Where to look, with which certificates and which credentials, is what `pip config list` says.
"""

import ast
import hashlib
import os
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

from genai_core.errors import InputError


def download(package: str, sha256: str, folder: Path) -> Path:
    """The file of `package` (name and pinned version) with this digest, written to `folder`.

    Raises InputError when no index has the package, or only with another digest.
    """
    from httpx2 import HTTPError
    from unearth import PackageFinder
    from unearth.auth import MultiDomainBasicAuth
    from unearth.fetchers.sync import PyPIClient

    options = pip_options("download")
    indexes = [] if _is_on(options.get("no-index", "")) else [options.get("index-url") or _default_index(),
                                                              *options.get("extra-index-url", "").split()]
    links = options.get("find-links", "").split()
    if not indexes + links:
        raise InputError("pip is configured to use no index (no-index) and no find-links")
    trusted = options.get("trusted-host", "").split()
    client: Any = PyPIClient(trusted_hosts=trusted, verify=_certificates(options), proxy=options.get("proxy") or None,
                             timeout=float(options.get("timeout") or options.get("default-timeout") or 15))
    with client as session:
        session.auth = MultiDomainBasicAuth(index_urls=indexes)
        finder = PackageFinder(session=session, index_urls=indexes, find_links=links, trusted_hosts=trusted,
                               ignore_compatibility=True)
        found = [match.link for match in finder.find_matches(package, allow_yanked=True, allow_prereleases=True)
                 if not match.link.is_vcs]
        for link in found:
            declared = (link.hash_option or {}).get("sha256")
            if declared and sha256 not in declared:
                continue
            file = folder / Path(link.filename).name
            digest = hashlib.sha256()
            try:
                with session.get_stream(link.normalized) as answer, file.open("wb") as out:
                    answer.raise_for_status()
                    for block in answer.iter_bytes():
                        digest.update(block)
                        out.write(block)
            except HTTPError as error:      # its text may hold the address with a password
                raise InputError(f"{link.filename} could not be downloaded ({type(error).__name__}); check the "
                                 "network, or switch the source off with `enabled: false`") from None
            if digest.hexdigest() == sha256:
                return file
            file.unlink()
    if found:
        raise InputError(f"{package} as the registry serves it does not have sha256 {sha256}; nothing was used")
    raise InputError(f"no index that pip is configured with (`pip config list`) has {package}; check the network, or "
                     "switch the source off with `enabled: false`")


def _default_index() -> str:
    """Where pip looks when nothing is configured, which it tells nobody but its own code.

    Asked in a process of its own: where pip has been imported, setuptools cannot be any more, and `torch.compile` needs
    it.
    """
    asked = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"
    return subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True).stdout.strip()


def pip_options(command: str) -> dict[str, str]:
    """What pip's files and the environment configure for a command; the environment goes first, then the command's own.
    """
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True,
                            stdin=subprocess.DEVNULL, check=False)
    if listed.returncode:
        raise InputError("`pip config list` fails, which tells where packages are: "
                         f"{(listed.stderr.splitlines() or ['no message'])[-1]}")
    values: dict[str, dict[str, str]] = {"global": {}, command: {}, ":env:": {}}
    for line in listed.stdout.splitlines():
        name, _, value = line.partition("=")
        section, _, option = name.rpartition(".")
        if section in values:
            values[section][option] = str(ast.literal_eval(value))
    return values["global"] | values[command] | values[":env:"]


def _is_on(value: str) -> bool:
    return value.strip().lower() in ("1", "true", "yes", "on", "t", "y")


def _certificates(options: dict[str, str]) -> Any:
    authorities = options.get("cert") or os.environ.get("REQUESTS_CA_BUNDLE")
    context = ssl.create_default_context(cafile=authorities or None)
    if own := options.get("client-cert"):
        context.load_cert_chain(own)
    return context
