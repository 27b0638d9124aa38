"""Releases as a user and a person at the UI see them: gates, rollback, approval, budget, and who is told."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.end_to_end.conftest import Api, copy_of, states
from tests.end_to_end.helpers import api_of, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.heavy]

CHANGED = ("run", "--preset", "smoke", "--set", "quantize.calibration_tokens=4096")
"""A run that makes another last model, in a few seconds."""
IMPOSSIBLE = ("--set", "promote.gates.int8-size.bound=0.01")


@pytest.fixture(scope="module")
def home(finished, prefect, tmp_path_factory):
    """A copy of the finished workspace, which has one release."""
    return copy_of(finished, tmp_path_factory.mktemp("release") / "home", PREFECT_API_URL=api_of(prefect))


def listed(home) -> list[dict]:
    return json.loads(home.genai("releases", "--json").stdout)


def champions(home) -> dict[str, int]:
    return {row["stage"]: row["version"] for row in home.models() if "champion" in row["aliases"]}


def test_a_gate_that_fails_ends_a_run_until_promote_and_one_of_promote_alone(home):
    before = champions(home)
    for which in (("--until", "promote"), ("--only", "promote")):
        failed = home.genai("run", "--preset", "smoke", *which, *IMPOSSIBLE, fails=True)
        assert "gate int8-size" in failed.stderr and "Traceback" not in failed.stderr
    assert champions(home) == before and len(listed(home)) == 1


def test_a_person_may_refuse_a_release_say_nothing_and_approve_it_later(home, prefect):
    api = Api(api_of(prefect))
    first, = listed(home)

    def answer(**said: str) -> str:
        process = home.start(*CHANGED, "--approval-hours", "1")
        paused = {"flow_runs": {"state": {"name": {"any_": ["Paused"]}}}}
        wait_for(lambda: api.post("/flow_runs/filter", **paused).json(), 120)
        (flow_run,) = api.post("/flow_runs/filter", **paused).json()
        assert listed(home)[-1] == first      # nothing moves while nobody has answered
        api.post(f"/flow_runs/{flow_run['id']}/resume", run_input=said)
        output = process.communicate(timeout=120)[0]
        return f"{process.returncode} {output}"

    refused = answer(decision="refuse", who="Ana", reason="not on a Friday")
    assert refused.startswith("1 ") and "refused by Ana: not on a Friday" in refused
    assert listed(home) == [first]
    silent = home.genai(*CHANGED, "--approval-hours", "0.001", fails=True).stderr
    assert "nobody approved the release within 0.001 hours" in silent and listed(home) == [first]
    assert answer(decision="promote", who="Ana", reason="it is Monday").startswith("0 ")
    old, new = listed(home)
    assert (old["state"], new["state"]) == ("previous", "in service")
    assert new["approved"] == "Ana: it is Monday" and new["compared_with"] == old["name"]
    assert champions(home)["quantize"] == 2


def test_approval_is_refused_where_nobody_could_give_it(finished):
    refused = finished.genai("run", "--preset", "smoke", "--approval-hours", "1", fails=True)
    assert "start `genai up` first" in refused.stderr and len(refused.stderr.splitlines()) == 1


def test_a_rollback_is_one_command(home):
    old, new = listed(home)
    assert f"release {old['name']} is in service again" in home.genai("rollback").stdout
    assert champions(home)["quantize"] == 1
    assert f"{new['name']}" in home.genai("promote", new["name"]).stdout
    assert champions(home)["quantize"] == 2
    refused = home.genai("rollback", "quantize", fails=True).stderr
    assert refused.startswith("genai: there is no release 'quantize'") and len(refused.splitlines()) == 1


def test_a_spent_budget_stops_at_a_checkpoint_and_the_same_run_continues(home):
    trained = ("run", "--preset", "smoke", "--set", "pretrain.seed=11", "--until", "pretrain")
    for step, limit in enumerate((("--max-hours", "1e-6"),
                                  ("--max-cost", "1e-6", "--set", "runtime.price_per_hour=3.6")), 1):
        stopped = home.genai(*trained, *limit, fails=True).stderr
        assert f"the budget of this run is spent: pretrain saved a checkpoint at step {step}" in stopped
        assert len(stopped.splitlines()) == 1
    continued = home.genai(*trained).stdout
    assert "continuing from the checkpoint at step" in continued
    assert states(continued)["pretrain"] == "Completed"
    assert "runtime.price_per_hour" in home.genai(*trained, "--max-cost", "1", fails=True).stderr


class Receiver:
    """A web server that keeps what is posted to it."""

    def __init__(self) -> None:
        received = self.received = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                received.append((self.path, json.loads(body)["text"]))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook-5e1f"

    def has(self, *words: str) -> bool:
        return any(all(word in text for word in words) for _, text in self.received)


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.server.shutdown()


def test_a_failed_gate_a_failed_run_and_a_stalled_loss_reach_a_webhook(home, receiver, prefect):
    home.genai("notify", "--webhook", receiver.url)
    try:
        time.sleep(3)      # the server reads new automations every other second
        home.genai("run", "--preset", "smoke", "--only", "promote", *IMPOSSIBLE, fails=True)
        wait_for(lambda: receiver.has("GateFailed: gate int8-size", "wanted <= 0.0100"), 60)
        home.genai("run", "--preset", "smoke", "--set", "pretrain.seed=12", "--set", "pretrain.learning_rate=1e-9",
                   "--set", "pretrain.matrix_learning_rate=1e-9",
                   "--set", "runtime.stall_steps=10", "--until", "pretrain")
        wait_for(lambda: receiver.has("pretrain: the loss has reached no new low since step"), 60)
        home.genai("run", "--preset", "smoke", "--set", "clean.min_words=100000", "--until", "tokenize", fails=True)
        wait_for(lambda: receiver.has("clean.min_words=100000", "Failed"), 60)
    finally:
        assert home.genai("notify", "--off").stdout.count("deleted") == 2
    written = b"".join(path.read_bytes() for path in prefect.log.parent.rglob("*") if path.is_file())
    assert b"hook-5e1f" not in written, "the address is a secret, yet it is in Prefect's files in plain text"


def test_a_single_run_with_a_server_of_its_own_tells_too(finished, receiver, tmp_path):
    alone = copy_of(finished, tmp_path / "home")
    alone.genai("notify", "--webhook", receiver.url)
    alone.genai("run", "--preset", "smoke", "--only", "promote", *IMPOSSIBLE, fails=True)
    assert receiver.has("GateFailed: gate int8-size")      # before the server ended with the run
