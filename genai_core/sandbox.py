"""Running code that a model wrote without letting it do harm, and telling whether it passes tests."""

import contextlib
import json
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from threading import Timer

_GUARD = """
import collections, contextlib, functools, json, operator, os, resource, signal, sys
import _posixsubprocess, ast, copy, datetime, hashlib, heapq, itertools, math, random, re, string, typing

seconds = int(sys.argv[1]) + 1
signal.alarm(seconds)
for limit, value in ((resource.RLIMIT_CPU, seconds), (resource.RLIMIT_AS, 1 << 30), (resource.RLIMIT_FSIZE, 0),
                     (resource.RLIMIT_CORE, 0)):
    with contextlib.suppress(ValueError, OSError):      # macOS refuses to limit memory
        resource.setrlimit(limit, (value, value))

def withheld(*_, **__):
    raise PermissionError("withheld")

for name in ("mkfifo", "mknod", "pidfd_open", "setpriority", "sched_setaffinity", "sched_setparam",
             "sched_setscheduler"):      # these change files and processes, and no hook is told of them
    for module in (os, sys.modules["posix"]):
        if hasattr(module, name):
            setattr(module, name, withheld)
_posixsubprocess.fork_exec = withheld

def steps():
    # What this knows is in no name and no frame while the code runs: the hook is the interpreter's, the steps are the
    # iterator's. Defaults are constants of a function that nobody can reach, not globals that the code could change.
    def refuse(event, arguments, changing=os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC, writing=frozenset("wax+"),
               untold=frozenset({"posix", "_posixsubprocess", "_posixshmem", "_multiprocessing", "_dbm", "_gdbm",
                                 "_tkinter", "readline"}),      # modules that change files without an event
               allowed=frozenset({"import", "compile", "exec", "marshal.loads", "os.listdir", "os.scandir",
                                  "sys._getframe", "sys._getframemodulename", "object.__getattr__",
                                  "object.__setattr__", "builtins.id", "array.__new__", "time.sleep"})):
        if event == "open":
            if writing.isdisjoint(arguments[1] or "") and not arguments[2] & changing:
                return
        elif event == "import" and arguments[0] in untold:
            raise ImportError(arguments[0])
        elif event in allowed:
            return
        raise PermissionError(event)

    nonce, _, program = sys.stdin.buffer.read().partition(b"\\n")
    parts = [compile(part, "program", "exec", dont_inherit=True) for part in json.loads(program)]
    answer = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.addaudithook(refuse)
    scope = {"__name__": "program"}
    return [*(functools.partial(exec, part, scope) for part in parts),
            functools.partial(os.write, answer, nonce), functools.partial(os._exit, 0)]

collections.deque(map(operator.call, steps()), maxlen=0)
"""


def passes(program: str, seconds: float, tests: Sequence[str] = ()) -> bool:
    """Whether a program, and tests after it, run to their end without an exception, in another process and in time.

    The process has no environment and an empty working directory, 1 GiB of memory, and may write no file. An audit hook
    (PEP 578), which cannot be taken off again, lets it compute, import and read, and refuses everything else that the
    interpreter tells hooks of: writing, deleting, starting processes, the network, ctypes. What makes files or reaches
    other processes without telling them is withheld. That holds what a language model writes by chance; it is no prison
    for code that was written to break out, which belongs in a virtual machine.

    The end is told by a nonce that no name, frame or descriptor of the process leads to, so that a program which leaves
    early, prints, or writes to what it finds open has not passed. Tests are compiled by themselves: no quote that is
    left open swallows them. But they run in the program's process, and believe what they see: objects that call
    themselves equal to anything pass, as do builtins that the program replaced, and a program that searches its own
    memory, which Linux shows as a file, can find the nonce.
    """
    nonce = secrets.token_hex(16).encode()
    with tempfile.TemporaryDirectory() as nowhere:
        process = subprocess.Popen([sys.executable, "-I", "-B", "-S", "-c", _GUARD, str(int(seconds))], cwd=nowhere,
                                   env={}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert process.stdin and process.stdout
        end = Timer(seconds, process.kill)
        end.start()
        try:
            with contextlib.suppress(BrokenPipeError), process.stdin as request:
                request.write(nonce + b"\n" + json.dumps([program, *tests]).encode())
            told = process.stdout.read(len(nonce) + 1)      # however much it writes, no more is kept
        finally:
            end.cancel()
            process.kill()
            process.wait()
            process.stdout.close()
    return told == nonce
