"""Running code that a model wrote without letting it do harm."""

import secrets
import subprocess
import sys
import tempfile

_GUARD = """
import contextlib, os, resource, sys
answer, nonce = os.dup(1), sys.argv[1].encode()
program = sys.stdin.read()
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
for limit, value in ((resource.RLIMIT_CPU, int(sys.argv[2])), (resource.RLIMIT_AS, 1 << 30), (resource.RLIMIT_FSIZE, 0),
                     (resource.RLIMIT_CORE, 0)):
    with contextlib.suppress(ValueError, OSError):      # macOS refuses to limit memory
        resource.setrlimit(limit, (value, value))
import ast, collections, copy, datetime, functools, hashlib, heapq, itertools, math, random, re, string, typing

def refuse(event, arguments):
    if event == "open":
        mode, flags = arguments[1], arguments[2]
        if not set(mode or "r") & set("wax+") and not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC):
            return
    elif event in ALLOWED:
        return
    raise PermissionError(event)

ALLOWED = frozenset({"import", "compile", "exec", "marshal.loads", "os.listdir", "os.scandir", "sys._getframe",
                     "object.__getattr__", "object.__setattr__", "builtins.id", "array.__new__", "time.sleep"})
sys.addaudithook(refuse)
exec(compile(program, "program", "exec"), {"__name__": "program"})
os.write(answer, nonce)
"""


def passes(program: str, seconds: float) -> bool:
    """Whether a program runs to its end without an exception, in another process and in time.

    The process has no environment and an empty working directory, 1 GiB of memory, and may write no file. An audit hook
    (PEP 578), which cannot be taken off again, lets it compute, import and read, and refuses everything else that the
    interpreter tells hooks of: writing, deleting, starting processes, the network, ctypes. That holds what a language
    model writes by chance; it is no prison for code that was written to break out, which belongs in a virtual machine.
    """
    nonce = secrets.token_hex(16)      # a program that leaves early, or prints, has not passed
    with tempfile.TemporaryDirectory() as nowhere:
        try:
            done = subprocess.run([sys.executable, "-I", "-B", "-S", "-c", _GUARD, nonce, str(int(seconds) + 1)],
                                  input=program.encode("utf-8", "replace"), stdout=subprocess.PIPE,
                                  stderr=subprocess.DEVNULL, cwd=nowhere, env={}, timeout=seconds, check=False)
        except subprocess.TimeoutExpired:
            return False
    return done.stdout == nonce.encode()
