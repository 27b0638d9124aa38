"""Starts of engines: who waits for one, for how long, and what becomes of one that fails or is not wanted any more."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from genai_core.serving import pool as engine_pool
from genai_core.serving.engines import choice
from genai_core.serving.engines.choice import start_engine
from genai_core.serving.errors import EngineFailed, Refused
from genai_core.serving.front.app import create_app
from genai_core.serving.limits import Limits
from genai_core.serving.pool import EnginePool, ServedModel
from genai_core.serving.run import _follow
from tests.genai_core.serving.servers import running, served_model, wait_until

pytest.importorskip("openai")
pytest.importorskip("xllamacpp")
pytest.importorskip("gguf")

FIRST, SECOND = (ServedModel(name, name, lambda: Path("model")) for name in ("first", "second"))


class StandIn:
    """An engine without a process."""

    module, slots, context, memory = "none", 1, 64, 0

    def __init__(self, name: str):
        self.name, self.taken, self.runs = name, 0, True

    def take(self) -> None:
        self.taken += 1

    def give_back(self) -> None:
        self.taken -= 1

    async def answers(self) -> bool:
        return self.runs

    async def stop(self, seconds: float = 0.0) -> None:
        while self.taken and seconds:
            await asyncio.sleep(0.01)
        self.runs = False

    def kill(self) -> None:
        self.runs = False


class Launching:
    """Starts stand-ins once they may, and fails for as long as there is a reason to."""

    def __init__(self):
        self.may, self.count, self.reason = threading.Event(), 0, ""

    def __call__(self, model: ServedModel, announce) -> StandIn:
        self.count += 1
        engine = StandIn(model.name)
        announce(engine)
        self.may.wait(10)
        if self.reason:
            raise EngineFailed(self.reason)
        return engine


def holds(claim) -> None:
    """Run what a test says of a pool in which two may wait."""
    async def run() -> None:
        launching = Launching()
        pool = EnginePool([FIRST], launching, 30, 2)
        try:
            await asyncio.wait_for(claim(pool, launching), 20)
        finally:
            launching.may.set()
            await pool.stop()

    asyncio.run(run())


async def waiters(pool: EnginePool, count: int) -> list[asyncio.Task]:
    tasks = [asyncio.create_task(pool.hold(FIRST)) for _ in range(count)]
    await asyncio.sleep(0.05)
    return tasks


def test_those_who_wait_for_a_start_are_counted_and_have_one_engine():
    async def claim(pool: EnginePool, launching: Launching) -> None:
        tasks = await waiters(pool, 2)
        with pytest.raises(Refused, match="2 requests are under way or wait already") as refused:
            await pool.hold(FIRST)
        assert refused.value.status == 429
        launching.may.set()
        first, second = [await task for task in tasks]
        assert first is second and first.taken == 2 and launching.count == 1

    holds(claim)


def test_who_goes_away_loses_no_start():
    async def claim(pool: EnginePool, launching: Launching) -> None:
        (task,) = await waiters(pool, 1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        launching.may.set()
        assert (await pool.hold(FIRST)).taken == 1 and launching.count == 1

    holds(claim)


def test_a_start_is_part_of_the_time_of_an_answer(tmp_path):
    async def claim(pool: EnginePool, launching: Launching) -> None:
        app = create_app(pool, Limits(seconds=0.1), key="", host="127.0.0.1", feedback=tmp_path)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
            answer = await client.post("/v1/completions", json={"prompt": "The"})
        error = answer.json()["error"]
        assert answer.status_code == 503 and error["code"] == "timeout"
        assert error["message"] == "the engine of first did not start within 0 s"

    holds(claim)


def test_a_model_that_could_not_start_has_a_pause(monkeypatch):
    async def claim(pool: EnginePool, launching: Launching) -> None:
        launching.may.set()
        launching.reason = "no memory"
        for _ in range(3):
            with pytest.raises(EngineFailed, match="no memory"):
                await pool.hold(FIRST)
            await pool.look_after()
        assert launching.count == 1
        await asyncio.sleep(1.05)
        launching.reason = ""
        await pool.look_after()
        assert launching.count == 2 and await pool.answers()

    monkeypatch.setattr(engine_pool, "PAUSE_SECONDS", 1.0)
    holds(claim)


def test_a_model_that_moves_away_while_it_starts_serves_those_who_waited_and_ends():
    async def claim(pool: EnginePool, launching: Launching) -> None:
        tasks = await waiters(pool, 2)
        moving = asyncio.create_task(pool.follow([SECOND]))
        await asyncio.sleep(0.05)
        pool.models = (SECOND,)      # whichever of the two starts is over first
        launching.may.set()
        first, second = [await task for task in tasks]
        await moving
        assert first is second and first.runs and launching.count == 2
        first.give_back()
        first.give_back()
        while first.runs:
            await asyncio.sleep(0.01)
        assert set(pool.engines) == {"second"}

    holds(claim)


def test_the_end_of_the_server_ends_an_engine_that_is_starting(tmp_path, monkeypatch):
    (tmp_path / "never_answers.py").write_text("import time\nopen('began', 'w').close()\ntime.sleep(600)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(choice, "OWN", "never_answers")
    monkeypatch.setattr(choice._Starting, "description", choice.ModelDescription(64))
    announced = []

    def launch(model: ServedModel, announce):
        def told(engine) -> None:
            announced.append(engine)
            announce(engine)

        return start_engine(Path("model"), "first", slots=1, queue=1, context=None, threads=1, folder=tmp_path,
                            engine="own", announce=told)

    async def run() -> float:
        pool = EnginePool([FIRST], launch, 30, 2)
        starting = asyncio.create_task(pool.start(FIRST))
        await asyncio.to_thread(wait_until, (tmp_path / "began").exists)
        began = time.monotonic()
        await pool.stop()
        with pytest.raises(Exception, match="ended while it started"):
            await starting
        return began

    began = asyncio.run(run())      # which waits for the threads that it started
    assert time.monotonic() - began < 5 and not announced[0].runs


# ---- with real engines

def test_an_engine_that_dies_is_started_again(model, tmp_path):
    with running(tmp_path, served_model(model)) as server:
        server.engine._process.kill()
        server.engine._process.wait()
        assert server.client().completions.create(model="tiny", prompt="The", max_tokens=4).choices


def test_the_model_changes_without_a_request_being_lost(model, other, tmp_path):
    asked = {"prompt": "The", "max_tokens": 40, "temperature": 0}
    with running(tmp_path, served_model(model), slots=2) as server, ThreadPoolExecutor(8) as threads:
        before = server.engine
        stop = threading.Event()

        def keep_asking() -> list[int]:
            statuses = []
            while not stop.is_set():
                statuses.append(server.post("/v1/completions", json=asked).status_code)
            return statuses

        first = server.post("/v1/completions", json=asked).json()["choices"][0]["text"]
        asking = [threads.submit(keep_asking) for _ in range(8)]
        for path in (other, model, other):
            time.sleep(0.3)
            server.call(server.pool.follow([served_model(path)]))
        time.sleep(0.3)
        stop.set()
        statuses = [status for asker in asking for status in asker.result()]
        assert set(statuses) == {200} and len(statuses) > 20
        assert server.post("/v1/completions", json=asked).json()["choices"][0]["text"] != first
        wait_until(lambda: not before.runs)
        assert server.pool.moves == 3


def test_a_registry_that_cannot_be_asked_and_a_model_that_does_not_start_change_nothing(model, other, tmp_path, caplog):
    """What serves goes on serving, and the move is tried again until it comes about."""
    broken, ended = tmp_path / "broken.gguf", threading.Event()
    broken.write_bytes(b"GGUF")
    answers = iter([OSError("the registry does not answer"), [served_model(broken)], None, [served_model(other)]])

    def look(key: str):
        found = next(answers, None)
        if isinstance(found, Exception):
            raise found
        return found

    with running(tmp_path, served_model(model)) as server:
        following = threading.Thread(target=_follow, args=(server.pool, look, 0.02, server.loop, ended))
        following.start()
        wait_until(lambda: server.pool.main.key == str(other))
        ended.set()
        following.join()
        assert server.client().completions.create(model="tiny", prompt="The", max_tokens=4).choices
        assert server.pool.moves == 1
    assert "goes on serving: the registry does not answer" in caplog.text and "not a readable GGUF file" in caplog.text
