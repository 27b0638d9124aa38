"""The pages in a real browser: start a run from the form, see it run and be cached, look at artifacts and models."""

import json
import os
import re
import time
from pathlib import Path

import pytest

from tests.end_to_end.conftest import STAGES, Api, Home

pytestmark = [pytest.mark.slow, pytest.mark.heavy, pytest.mark.browser]

SCREENSHOTS = os.environ.get("GENAI_SCREENSHOTS")
"""A folder to keep the pictures in that the documents show."""


def picture(page, name: str) -> None:
    page.wait_for_timeout(2000)      # charts draw themselves
    if SCREENSHOTS:
        page.screenshot(path=Path(SCREENSHOTS) / f"{name}.png")


def choose(page, label: str, option: str) -> None:
    """Take an option of the select below a label."""
    page.locator("label", has_text=f"{label} (Optional)").first.locator(
        "xpath=following::button[contains(@class, 'p-select-button__control')][1]").focus()
    page.keyboard.press("ArrowDown")
    page.get_by_role("option", name=option, exact=True).click()


def custom_run(page, prefect: str, min_words: str) -> None:
    """Deployment, custom run, another preset, one changed field, submit: as a person does it."""
    page.goto(f"{prefect}/deployments")
    page.get_by_role("link", name="laptop", exact=True).click()
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_text("Custom run").click()
    page.get_by_text("Where every value comes from that is not set below.").wait_for()
    choose(page, "preset", "smoke")
    choose(page, "until", "tokenize")
    field = page.locator("label", has_text="Min Words (Optional)").first
    field.locator("xpath=following::input[1]").fill(min_words)
    page.evaluate("window.scrollTo(0, 0)")
    picture(page, "prefect-form")
    page.get_by_role("button", name="Submit").click()
    page.wait_for_url("**tab=Runs")


def newest_run(api: Api, count: int) -> str:
    """The id of the run that the form made."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        runs = api.post("/flow_runs/filter", sort="EXPECTED_START_TIME_DESC",
                        deployments={"id": {"any_": [api.deployment("laptop")["id"]]}}).json()
        if len(runs) == count:
            return runs[0]["id"]
        time.sleep(0.3)
    raise AssertionError("the form made no run")


def task_states(api: Api, flow_run: str) -> dict[str, str]:
    runs = api.post("/task_runs/filter", flow_runs={"id": {"any_": [flow_run]}}).json()
    return {entry["name"].rsplit("-", 1)[0]: entry["state_name"] for entry in runs}


def test_a_run_from_the_form_completes_and_the_second_is_cached(page, up: Home, api: Api):
    prefect = api.address.removesuffix("/api")
    before = len(api.post("/flow_runs/filter", deployments={"id": {"any_": [api.deployment("laptop")["id"]]}}).json())
    custom_run(page, prefect, "9")
    page.goto("about:blank")      # a browser that draws takes the processor from what it watches
    first = newest_run(api, before + 1)
    assert api.wait(first) == "Completed"
    parameters = api.flow_run(first)["parameters"]
    assert parameters["preset"] == "smoke" and parameters["fields"] == {"clean": {"min_words": 9}}
    assert task_states(api, first) == {"collect": "Cached", "clean": "Completed", "tokenize": "Completed"}

    custom_run(page, prefect, "9")
    second = newest_run(api, before + 2)
    assert api.wait(second) == "Completed"
    page.goto(f"{prefect}/runs/flow-run/{second}")
    page.get_by_text("Task Runs", exact=True).first.click()
    page.get_by_text("Cached", exact=True).nth(2).wait_for()
    picture(page, "prefect-run")
    page.get_by_text("Artifacts", exact=True).last.click()
    page.get_by_text("stages").first.wait_for()
    listed = api.post("/artifacts/filter", artifacts={"flow_run_id": {"any_": [second]}, "key": {"any_": ["stages"]}})
    page.goto(f"{prefect}/artifacts/artifact/{listed.json()[0]['id']}")
    page.get_by_role("cell", name="tokenize").first.wait_for()
    picture(page, "prefect-artifact")


def test_the_report_is_an_artifact_with_visible_curves(page, api: Api):
    prefect = api.address.removesuffix("/api")
    reports = api.post("/artifacts/filter", artifacts={"key": {"any_": ["run-report"]}}).json()
    page.goto(f"{prefect}/artifacts/artifact/{reports[0]['id']}")
    page.get_by_role("heading", name="Language model of depth 1: run report").wait_for()
    image = page.locator("img[alt='curves of pretrain']")
    image.wait_for()
    assert image.evaluate("image => image.naturalWidth") > 300
    image.scroll_into_view_if_needed()
    picture(page, "prefect-report")


def test_mlflow_shows_nested_runs_a_curve_and_the_registered_models(page, up: Home):
    mlflow = json.loads((up.root / ".genai" / "services.json").read_text())["mlflow"]
    page.goto(f"{mlflow}/#/experiments/1/runs?workflowType=machine_learning")
    page.get_by_role("button", name="Close").first.click()      # the assistant's panel
    parent = page.get_by_role("link", name=re.compile(r"^smoke · \d{4}-")).last
    parent.locator("xpath=ancestor::*[@role='gridcell']//button").first.click()
    for stage in STAGES:
        page.get_by_role("link", name=stage, exact=True).first.wait_for()
    picture(page, "mlflow-runs")
    page.get_by_role("link", name="pretrain", exact=True).first.click()
    page.get_by_role("tab", name="Model metrics").click()
    page.get_by_text("bits_per_byte/reviews").first.wait_for()
    page.locator(".js-plotly-plot").first.wait_for()
    picture(page, "mlflow-curves")
    page.goto(f"{mlflow}/#/models/genai-quantize")
    page.get_by_text("champion").first.wait_for()
    picture(page, "mlflow-model")
