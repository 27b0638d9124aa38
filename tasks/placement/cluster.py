"""Data stages on many machines: a mapper over the workers of a Dask scheduler, named by `runtime.data_cluster`.

It is given to a stage as `context.map`, in place of this machine's processes, and speaks to Dask's own client.
Prefect's task runner for Dask was tried and not taken: every shard becomes a task run of its own, for which each worker
imports Prefect and asks its server several times. Ray was tried beside it; figures of both are in docs/LOG.md.

A worker that dies costs the shards that it had: Dask gives them to another, which writes the same files again.
"""

import hashlib
import json
import logging
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from genai_core.config.runtime import Runtime
from genai_core.context import Mapper
from genai_core.errors import InputError
from genai_core.mapping import processes
from tasks.store.fingerprint import code_fingerprint
from tasks.store.records import environment

if TYPE_CHECKING:
    from distributed import Client, Future

Item = TypeVar("Item")
Answer = TypeVar("Answer")

logger = logging.getLogger("tasks")

CONNECT_SECONDS = 20
WORKERS_SECONDS = 120
"""How long to wait for a worker where there is none, be it at the start or because the last one died."""
LOOK_SECONDS = 5
ENDING_SECONDS = 60
"""How long the calls that are under way may go on after another one has failed."""


def mapper_for(runtime: Runtime, core: str, folder: Path) -> AbstractContextManager[Mapper]:
    """The mapper of a stage: over the workers of a cluster where one is named, else over processes of this machine.

    `core` is the module of the stage, `folder` the one that it writes to.
    """
    return DaskCluster(runtime.data_cluster, core, folder) if runtime.data_cluster else processes(runtime.workers)


@dataclass(frozen=True)
class Surroundings:
    """What a worker must share with the process whose stage it works for, so that its bytes are the same."""

    folder: Path
    """The stage's scratch folder, whose name no other folder has."""
    core: str
    """Module of the stage."""
    code: str
    """Digest of the code that the module reaches."""
    environment: tuple[tuple[str, str], ...]
    """Versions of Python and of the libraries that stages compute with."""

    @classmethod
    def here(cls, core: str, folder: Path) -> "Surroundings":
        return cls(folder.absolute(), core, code_digest(core), tuple(environment().items()))


class DaskCluster:
    """A mapper over the workers of the scheduler at `address`, reached at the first call.

    Raises InputError when Dask is not installed, the scheduler is not reached, it has no worker, or a worker lacks
    something of the stage's surroundings; and when a shard has ended as many workers as the scheduler allows.
    """

    def __init__(self, address: str, core: str, folder: Path):
        self.address = address
        self._core = core
        self._folder = folder
        self._client: Client | None = None
        self._surroundings: Surroundings | None = None
        self._running: deque[Future] = deque()

    def __enter__(self) -> "DaskCluster":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
                 ) -> None:
        if self._client is None:
            return
        if kind is None or issubclass(kind, Exception):
            # a call cannot be stopped, and its files belong to a folder that goes next
            deadline = time.monotonic() + ENDING_SECONDS
            while not all(call.done() for call in self._running) and time.monotonic() < deadline:
                time.sleep(0.1)
        self._running.clear()
        with suppress(Exception):      # of a scheduler that is gone
            self._client.close(timeout=LOOK_SECONDS)
        self._client = None

    def __call__(self, function: Callable[[Item], Answer], items: Iterable[Item], /) -> Iterator[Answer]:
        client = self._connected()
        threads = sum(client.nthreads().values())
        waiting: deque[Future] = deque()
        for item in items:
            call = client.submit(call_beside, self._surroundings, function, item, pure=False)
            waiting.append(call)
            self._running.append(call)
            if len(waiting) > 2 * threads:      # items are drawn as they are needed, answers kept until wanted
                yield self._answer(client, waiting.popleft())
        while waiting:
            yield self._answer(client, waiting.popleft())

    def _answer(self, client: "Client", call: "Future") -> Any:
        from distributed import KilledWorker
        lonely_since = None
        while True:
            try:
                answer = call.result(timeout=LOOK_SECONDS)
                break
            except KilledWorker as error:
                raise InputError(f"runtime.data_cluster: a shard ended {error.allowed_failures + 1} workers of "
                                 f"{self.address}, perhaps for lack of memory; their logs tell") from None
            except CancelledError:
                raise InputError(f"runtime.data_cluster: the scheduler at {self.address} is gone; start it and the "
                                 "same run again") from None
            except TimeoutError:
                if call.status == "error":      # it is the function's own
                    raise
                if client.nthreads():
                    lonely_since = None
                    continue
                lonely_since = lonely_since or time.monotonic()
                if time.monotonic() - lonely_since > WORKERS_SECONDS:
                    raise InputError(self._no_worker()) from None
        self._running.remove(call)
        return answer

    def _connected(self) -> "Client":
        if self._client is None:
            self._client = _connect(self.address)
            self._surroundings = Surroundings.here(self._core, self._folder)
            self._check_workers(self._client)
        return self._client

    def _check_workers(self, client: "Client") -> None:
        try:
            client.wait_for_workers(1, timeout=WORKERS_SECONDS)
        except TimeoutError:
            raise InputError(self._no_worker()) from None
        for worker, reason in client.run(lacking, self._surroundings, on_error="return").items():
            if isinstance(reason, ModuleNotFoundError):
                reason = f"it cannot import this project ({reason}); start it in the environment of the project"
            if reason and not isinstance(reason, OSError):      # one that died meanwhile
                raise InputError(f"runtime.data_cluster: worker {worker}: {reason}")
        if any(threads > 1 for threads in client.nthreads().values()):
            logger.warning("workers of %s have several threads, which wait for each other; start them with "
                           "--nworkers auto --nthreads 1", self.address)

    def _no_worker(self) -> str:
        return (f"runtime.data_cluster: the scheduler at {self.address} has no worker; start some with "
                f"`dask worker {self.address} --nthreads 1`")


def _connect(address: str) -> "Client":
    try:
        from distributed import Client
        from distributed.security import Security
    except ImportError:
        raise InputError("runtime.data_cluster: Dask is not installed; "
                         "pip install -c constraints.txt -e '.[dask]'") from None
    if address.startswith("tls://") and Security().get_connection_args("client").get("ssl_context") is None:
        raise InputError(f"runtime.data_cluster: {address} asks for a certificate; name yours in "
                         "DASK_DISTRIBUTED__COMM__TLS__CA_FILE, …__CLIENT__CERT and …__CLIENT__KEY")
    logging.getLogger("distributed").setLevel(logging.CRITICAL)      # what matters of it is told in our words
    try:
        return Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, RuntimeError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"runtime.data_cluster: no Dask scheduler answers at {address} ({why}); start one with "
                         "`dask scheduler`, or leave the setting empty") from None


@cache
def code_digest(core: str) -> str:
    """Digest of the code that a stage's module reaches, as this process read it first: what it has imported."""
    return hashlib.sha256(json.dumps(code_fingerprint(core), sort_keys=True).encode()).hexdigest()


def lacking(wanted: Surroundings) -> str:
    """What this process lacks of the surroundings, and what to do; empty when it has all."""
    if not wanted.folder.is_dir():
        return (f"{socket.gethostname()} does not see {wanted.folder}; workspace and workers need one file system, "
                "under one path")
    if code_digest(wanted.core) != wanted.code:
        return f"{socket.gethostname()} has other code of {wanted.core}; bring it to the same commit and start it again"
    own = environment()
    different = [f"{name} {own.get(name, 'missing')} in place of {version}" for name, version in wanted.environment
                 if own.get(name) != version]
    return f"{socket.gethostname()} has {', '.join(different)}; install the same versions" if different else ""


def call_beside(surroundings: Surroundings, function: Callable[[Item], Answer], item: Item) -> Answer:
    """`function(item)`, in a worker. Raises InputError where it lacks something, also because the stage has ended."""
    if reason := lacking(surroundings):
        raise InputError(f"runtime.data_cluster: a worker: {reason}")
    return function(item)
