"""What `genai up` starts is closed to strangers: pages of other origins, other users of the machine, and triggers."""

import http.server
import json
import stat
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import psutil
import pytest

from tasks.store.workspace import REPOSITORY
from tests.end_to_end.conftest import Api, Home
from tests.end_to_end.helpers import Server, answers, api_of, processes_in

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def mlflow(up: Home) -> str:
    return json.loads((up.root / ".genai" / "services.json").read_text())["mlflow"]


@pytest.mark.parametrize("auth", [None, ("genai", "guessed"), ("genai", "")])
def test_who_does_not_know_the_password_is_refused_by_both_servers(api: Api, mlflow: str, auth):
    asked = {"prefect": httpx.post(f"{api.address}/deployments/filter", json={}, auth=auth),
             "a run": httpx.post(f"{api.address}/deployments/{api.deployment('laptop')['id']}/create_flow_run",
                                 json={"parameters": {"preset": "smoke"}}, auth=auth),
             "mlflow": httpx.get(f"{mlflow}/api/2.0/mlflow/registered-models/search", auth=auth),
             "its page": httpx.get(mlflow, auth=auth),
             "a file": httpx.get(f"{mlflow}/get-artifact?path=config.yaml&run_uuid=1", auth=auth),
             "a deletion": httpx.request("DELETE", f"{mlflow}/api/2.0/mlflow/registered-models/delete",
                                         json={"name": "genai-pretrain"}, auth=auth)}
    assert {name: answer.status_code for name, answer in asked.items()} == dict.fromkeys(asked, 401)


def test_the_password_is_in_a_file_of_its_owner_and_in_no_command_line(up: Home):
    file = up.root / ".genai" / "password"
    password = file.read_text().strip().partition(":")[2]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and len(password) > 30
    assert not [process for process in psutil.process_iter() if password in " ".join(process.cmdline())]
    assert password not in up.genai("status").stdout and str(file) in up.genai("status").stdout


def test_every_socket_listens_on_loopback(up: Home):
    listening = [connection.laddr for process in processes_in(up.root)
                 for connection in process.net_connections("inet") if connection.status == psutil.CONN_LISTEN]
    assert len(listening) >= 3 and {address.ip for address in listening} == {"127.0.0.1"}


def test_nobody_can_shut_the_deployments_down_by_a_request(up: Home):
    health = json.loads((up.root / ".genai" / "services.json").read_text())["services"]["deployments"]["health"]
    assert httpx.post(health.replace("/health", "/shutdown")).status_code != 200
    assert answers(health)


@pytest.mark.parametrize("parameters", [
    {"overrides": {"collect.sources.stolen": {"kind": "files", "paths": ["FILE.txt"], "licence": "x"}}},
    {"preset_file": "FILE.yaml"}], ids=["a source", "a preset file"])
def test_a_triggered_run_reads_no_file_outside_the_workspace(api: Api, up: Home, tmp_path, parameters):
    for suffix in (".txt", ".yaml"):
        (tmp_path / f"file{suffix}").write_text("password: swordfish\n")
    given = json.loads(json.dumps(parameters).replace("FILE", str(tmp_path / "file")))
    answer = api.post(f"/deployments/{api.deployment('laptop')['id']}/create_flow_run",
                      parameters={"preset": "smoke", "until": "collect", **given},
                      job_variables={"env": {"GENAI_DATA_ROOTS": "/"}})      # of no avail either
    flow_run = answer.json()["id"]
    assert api.wait(flow_run) == "Failed"
    message = api.state(flow_run)["message"]
    assert "GENAI_DATA_ROOTS" in message and "swordfish" not in message


def test_the_owner_of_the_machine_reads_any_file_by_the_command(up: Home, tmp_path):
    (tmp_path / "own.txt").write_text("Once upon a time there was a file outside of every workspace.")
    source = json.dumps({"kind": "files", "paths": [str(tmp_path / "own.txt")], "licence": "mine"})
    lines = json.loads(up.genai("plan", "--preset", "smoke", "--set", f"collect.sources.own={source}", "--json").stdout)
    assert lines[0]["state"] == "miss" and "own" in lines[0]["why"]


@pytest.mark.heavy
def test_a_trigger_sets_neither_the_command_nor_the_environment_of_a_worker(copied: Home, prefect: Server, tmp_path):
    """The work pool of deploy/ fixes both; Prefect's own lets whoever triggers a run give them."""
    api, mark = Api(api_of(prefect)), tmp_path / "mark"
    environment = {**copied.environment, "GENAI_REPOSITORY": str(REPOSITORY), "MLFLOW_TRACKING_URI": ""}
    command = [Path(sys.executable).with_name("prefect"), "--no-prompt"]
    template = REPOSITORY / "deploy" / "work-pool.json"
    for arguments in (["work-pool", "create", "genai", "--type", "process", "--base-job-template", str(template),
                       "--overwrite"], ["deploy", "--name", "laptop"]):
        done = subprocess.run([*command, *arguments], cwd=REPOSITORY, env=environment, capture_output=True, text=True,
                              check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    (tmp_path / "file.txt").write_text("password: swordfish\n")
    stolen = {"kind": "files", "paths": [str(tmp_path / "file.txt")], "licence": "x"}
    answer = api.post(f"/deployments/{api.deployment('laptop')['id']}/create_flow_run",
                      parameters={"preset": "smoke", "until": "collect", "overrides": {"collect.sources.x": stolen}},
                      job_variables={"command": f"touch {mark}", "env": {"GENAI_DATA_ROOTS": "/"}})
    with (tmp_path / "worker.log").open("wb") as log:
        subprocess.run([*command, "worker", "start", "--pool", "genai", "--run-once"], cwd=REPOSITORY, env=environment,
                       stdout=log, stderr=log, timeout=180, check=False)
    flow_run = answer.json()["id"]
    assert api.wait(flow_run) == "Failed" and "GENAI_DATA_ROOTS" in api.state(flow_run)["message"]
    assert not mark.exists()


ATTACK = """
async ([prefect, mlflow, deployment, health]) => {
  const run = JSON.stringify({parameters: {preset: "smoke", until: "collect"}, name: "attack"});
  const model = JSON.stringify({name: "genai-pretrain"});
  const json = {"Content-Type": "application/json"}, plain = {"Content-Type": "text/plain"};
  const asked = {
    "start a run": [`${prefect}/deployments/${deployment}/create_flow_run`, "POST", run],
    "read runs": [`${prefect}/flow_runs/filter`, "POST", "{}"],
    "delete a deployment": [`${prefect}/deployments/${deployment}`, "DELETE", null],
    "read models": [`${mlflow}/api/2.0/mlflow/registered-models/search`, "GET", null],
    "read models as the page does": [`${mlflow}/ajax-api/2.0/mlflow/registered-models/search`, "GET", null],
    "delete a model": [`${mlflow}/api/2.0/mlflow/registered-models/delete`, "DELETE", model],
    "tag a model": [`${mlflow}/api/2.0/mlflow/registered-models/set-tag`, "POST",
                    JSON.stringify({name: "genai-pretrain", key: "attack", value: "yes"})],
    "stop the deployments": [health.replace("/health", "/shutdown"), "POST", ""],
  };
  const succeeded = [];
  for (const [name, [address, method, body]] of Object.entries(asked))
    for (const headers of [json, plain])
      for (const mode of ["cors", "no-cors"])
        for (const credentials of ["include", "omit"])
          try {
            const answer = await fetch(address, {method, body, headers, mode, credentials});
            if (answer.ok) succeeded.push(name);      // what no-cors hides from the page is looked for below
          } catch { }
  return succeeded;
}
"""


@pytest.fixture(scope="module")
def strange_page():
    """Port of a page of somebody else's: another port of this machine, and by another name another site."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<h1>win a prize</h1>")

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()


@pytest.mark.heavy
@pytest.mark.browser
@pytest.mark.parametrize("host", ["127.0.0.1", "stranger.localhost"])
def test_a_page_of_another_origin_can_do_nothing_although_its_reader_is_logged_in(
        page, up: Home, api: Api, mlflow: str, strange_page: int, host: str):
    auth = api.auth
    page.goto(mlflow)      # the browser has learnt the password of MLflow too
    health = json.loads((up.root / ".genai" / "services.json").read_text())["services"]["deployments"]["health"]
    deployment = api.deployment("laptop")["id"]
    page.goto(f"http://{host}:{strange_page}/")
    assert page.evaluate(ATTACK, [api.address, mlflow, deployment, health]) == []
    assert api.post("/flow_runs/filter", flow_runs={"name": {"any_": ["attack"]}}).json() == []
    assert api.deployment("laptop")["id"] == deployment
    answer = httpx.get(f"{mlflow}/api/2.0/mlflow/registered-models/get?name=genai-pretrain", auth=auth)
    assert answer.status_code == 200 and "attack" not in answer.text
    assert answers(health)


@pytest.mark.heavy
@pytest.mark.browser
def test_the_same_requests_succeed_from_the_pages_of_the_servers_themselves(page, up, api, mlflow):
    """So what the strange page was refused was refused for being strange."""
    page.goto(mlflow)
    asked = "address => fetch(address).then(answer => answer.status)"
    assert page.evaluate(asked, f"{mlflow}/ajax-api/2.0/mlflow/registered-models/search") == 200
