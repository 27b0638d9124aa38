"""Worker processes that the data stages map a function over shards in; the mapper of one process is in context.py.

A mapper is called as `map` is and gives results in the order of the items, so that what a stage writes never depends on
the number of workers. `tasks/placement/cluster.py` is one more, over the workers of many machines. An item may be done
twice, if a worker dies in between: a function that writes, writes the same files again. No data stage imports this
module: how it is done is no part of a key.

Workers are plain interpreters that are handed pickled calls through a pipe. `multiprocessing` was tried: each of its
spawned children imports the parent's main module again, here Prefect and MLflow, 300 MB and some seconds apiece; and
forking a process that has threads deadlocks. `python -m genai_core.mapping` is such a worker.
"""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from types import TracebackType
from typing import Any, TypeVar

from genai_core.errors import InputError

Item = TypeVar("Item")
Answer = TypeVar("Answer")

SINGLE_THREADED = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS",
                   "ARROW_IO_THREADS")
"""Variables that keep a library's own threads out of workers: there are as many workers as cores already."""

_DIE_WITH_PARENT = 1      # PR_SET_PDEATHSIG


class WorkerDied(InputError):
    """A worker ended in the middle of a call."""

    def __init__(self, status: int):
        super().__init__(f"a worker of the data stages ended with status {status}, perhaps for lack of memory; set "
                         "runtime.workers lower")
        self.status = status


class Processes:
    """A mapper over `workers` processes, started at the first call and ended on leaving the `with` block.

    `function` and the items must be picklable. What a function raises is raised here; a worker that dies, for example
    for lack of memory, is WorkerDied, and an answer that is not there after `seconds` a TimeoutError.
    """

    def __init__(self, workers: int, seconds: float | None = None):
        self.workers = workers
        self.seconds = seconds
        self._idle: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()
        self._started: list[subprocess.Popen[bytes]] = []
        self._threads: ThreadPoolExecutor | None = None

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
                 ) -> None:
        self.close()

    def close(self) -> None:
        for worker in self._started:
            worker.kill()      # between two calls or after a failure: nothing it does is wanted any more
        if self._threads:
            self._threads.shutdown(cancel_futures=True)
        for worker in self._started:
            worker.wait()
            for pipe in (worker.stdin, worker.stdout):
                if pipe:
                    pipe.close()

    def __call__(self, function: Callable[[Item], Answer], items: Iterable[Item], /) -> Iterator[Answer]:
        waiting: deque[Future[Answer]] = deque()
        for item in items:
            waiting.append(self._submit(function, item))
            if len(waiting) > 2 * self.workers:      # items are drawn as they are needed, answers kept until wanted
                yield waiting.popleft().result(self.seconds)
        while waiting:
            yield waiting.popleft().result(self.seconds)

    def _submit(self, function: Callable[[Item], Answer], item: Item) -> "Future[Answer]":
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self.workers)
            for _ in range(self.workers):      # by a thread that lives as long as they: they end with who started them
                self._started.append(self._threads.submit(_start_worker).result())
                self._idle.put(self._started[-1])
        return self._threads.submit(self._call, function, item)

    def _call(self, function: Callable[[Item], Answer], item: Item) -> Answer:
        worker = self._idle.get()
        assert worker.stdin and worker.stdout
        try:
            pickle.dump((function, item), worker.stdin, pickle.HIGHEST_PROTOCOL)
            worker.stdin.flush()
            succeeded, answer = pickle.load(worker.stdout)
        except (EOFError, OSError, pickle.UnpicklingError):
            raise WorkerDied(worker.wait()) from None
        finally:
            self._idle.put(worker)
        if not succeeded:
            raise answer
        return answer


def processes(workers: int) -> Processes:
    """A mapper over `workers` processes; 0 for as many as this process may use cores."""
    return Processes(workers or usable_cores())


def usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _start_worker() -> "subprocess.Popen[bytes]":
    environment = {**os.environ, **dict.fromkeys(SINGLE_THREADED, "1"),
                   "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.Popen([sys.executable, "-m", "genai_core.mapping", str(os.getpid())], env=environment,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def _end_with_parent(parent: int) -> None:
    """From now on end this worker when the process that started it is no more, in the middle of a call if need be.

    On Linux the kernel does it: a thread gets no turn while `re`, or other code in C, holds the interpreter's lock. On
    other systems only a thread watches, so that such a call goes on until it returns.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)

    def watch() -> None:
        while os.getppid() == parent:      # asked at once: it may be gone already
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _work(parent: int) -> None:
    """Answer calls until there are no more."""
    _end_with_parent(parent)
    calls = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)      # what a library prints must not be read as an answer
    while True:
        try:
            function, item = pickle.load(calls)
        except EOFError:
            return
        answer: tuple[bool, Any]
        try:
            answer = True, function(item)
        except Exception as error:
            answer = False, error
        try:
            message = pickle.dumps(answer, pickle.HIGHEST_PROTOCOL)
        except Exception as error:
            message = pickle.dumps((False, RuntimeError(f"{answer[1]!r} cannot be handed back ({error})")))
        answers.write(message)
        answers.flush()


if __name__ == "__main__":
    _work(int(sys.argv[1]))
