"""A program in C as a library: compiled once for this machine, and kept where only this user can write."""

import atexit
import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from genai_core.roots import cache_directory

FLAGS = ("-O3", "-shared", "-fPIC", "-fno-math-errno", "-fno-trapping-math")      # not -ffast-math: NaN stays NaN
MACHINES = (("-march=native", "-fopenmp"), ("-march=native", "-fopenmp-simd"), ("-mcpu=native", "-fopenmp-simd"),
            ("-fopenmp-simd",), ())
"""Further flags, the first that a compiler takes: some have no threads, some another name for this processor. PyTorch's
wheels bring a GNU OpenMP of the same name as the system's, so that both share one pool of threads."""


class NoLibrary(Exception):
    """The program cannot be compiled or loaded here."""


def open_library(source: Path, digest: str) -> ctypes.CDLL:
    """The library of a source file whose SHA-256 is `digest`. Raises NoLibrary."""
    try:
        return _open(source, digest)
    except (OSError, ValueError, IndexError, subprocess.SubprocessError, NoLibrary) as error:
        raise NoLibrary(" ".join(str(error).split())[:300]) from None


def _open(source: Path, digest: str) -> ctypes.CDLL:
    """From the cache, if the file's bytes are those that its name tells, else compiled."""
    if hashlib.sha256(source.read_bytes()).hexdigest() != digest:
        raise NoLibrary(f"{source.name} is not the file that this version was made with")
    compiler = shlex.split(os.environ.get("CC") or "cc")
    version = subprocess.run([*compiler, "--version"], capture_output=True, timeout=20, check=True).stdout
    key = _short_digest(repr([digest, compiler, version, FLAGS, MACHINES, _processor()]).encode())
    folder = _folder()
    for file in folder.glob(f"{key}-*.so"):
        if file.stem == f"{key}-{_short_digest(file.read_bytes())}":
            return ctypes.CDLL(str(file))
        file.unlink(missing_ok=True)      # damaged
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        made = Path(scratch) / "library.so"
        _compile(compiler, source, made)
        file = folder / f"{key}-{_short_digest(made.read_bytes())}.so"
        made.replace(file)
    return ctypes.CDLL(str(file))


def _compile(compiler: list[str], source: Path, made: Path) -> None:
    for flags in MACHINES:
        done = subprocess.run([*compiler, *FLAGS, *flags, str(source), "-o", str(made), "-lm"], timeout=120,
                              capture_output=True, text=True, errors="replace")
        if done.returncode == 0:
            return
    raise NoLibrary(done.stderr)


def _short_digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _processor() -> str:
    """What the machine's processor understands: a library for another one might not run on it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    told = sorted({line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))})
    return repr([platform.platform(), platform.processor(), *told])


def _folder() -> Path:
    """Where libraries are kept: a folder of this user alone, since what is in it is run; else one for this process."""
    try:
        folder = cache_directory() / "native"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
        if status.st_uid == os.getuid() and not status.st_mode & 0o077 and os.access(folder, os.W_OK):
            return folder
    except (OSError, RuntimeError, AttributeError):      # nobody knows a home, or users have no numbers
        pass
    private = tempfile.mkdtemp(prefix="genai-native-")
    atexit.register(shutil.rmtree, private, ignore_errors=True)
    return Path(private)
