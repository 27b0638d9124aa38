"""One answer that is lost on the way, or breaks off in the middle, ends no run and makes nothing twice."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from tests.end_to_end.conftest import Home, states
from tests.end_to_end.helpers import address_of, api_of

pytestmark = [pytest.mark.slow, pytest.mark.heavy]


class Flaky:
    """A proxy in front of a real server that spoils the first answer to each kind of request that `spoils` names."""

    def __init__(self, server, spoils):
        self.spoiled = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                kept = {name: value for name, value in self.headers.items() if name.lower() not in (
                    "host", "connection", "accept-encoding")}
                answer = httpx.request(self.command, server + self.path, headers=kept, content=body, timeout=60)
                kind = next((kind for kind in spoils if kind in f"{self.command} {self.path}"
                             and kind not in proxy.spoiled), None)
                if kind:
                    proxy.spoiled.append(kind)
                    if spoils[kind]:
                        return self.send_error(spoils[kind])
                self.send_response(answer.status_code)
                for name in ("Content-Type", "Retry-After"):
                    if name in answer.headers:
                        self.send_header(name, answer.headers[name])
                self.send_header("Content-Length", str(len(answer.content)))
                self.end_headers()
                self.wfile.write(answer.content[:len(answer.content) // 2] if kind else answer.content)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def test_blips_of_both_servers_end_no_run_and_a_model_that_breaks_off_is_fetched_again(prefect, mlflow, tmp_path):
    tracker = Flaky(address_of(mlflow), {"POST /api/2.0/mlflow/runs/create": 503, "model.safetensors": 0})
    orchestrator = Flaky(api_of(prefect).removesuffix("/api"), {"POST /api/flow_runs/": 504, "/set_state": 500})
    settings = {"PREFECT_API_URL": f"{orchestrator.address}/api", "MLFLOW_TRACKING_URI": tracker.address}
    ann, bob = Home(tmp_path / "ann", settings), Home(tmp_path / "bob", settings)
    for home in (ann, bob):
        home.root.mkdir()
    made = ann.run(until="pretrain")
    fetched = states(bob.genai("run", "--preset", "smoke", "--until", "pretrain").stdout)
    assert (made["pretrain"], fetched["pretrain"]) == ("Completed", "Fetched")
    assert len(tracker.spoiled) == 2 and len(orchestrator.spoiled) == 2
