"""What `genai up` serves is what prefect.yaml declares, field for field."""

import os

import pytest
import yaml

from flows.services.deployments import declared, deployment
from tasks.catalog import FAMILIES
from tasks.store.workspace import REPOSITORY

DOCUMENT = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("entry", declared(), ids=lambda entry: entry["name"])
def test_a_served_deployment_has_every_field_of_its_declaration(entry):
    entry = {**entry, "concurrency_limit": {"limit": 2, "collision_strategy": "CANCEL_NEW"},
             "schedules": [{"cron": "0 3 * * *", "timezone": "UTC", "active": False, "slug": "s",
                            "parameters": {"preset": "smoke"}}]}
    served = deployment(entry)
    assert (served.name, served.description, served.tags) == (entry["name"], entry["description"], entry["tags"])
    assert served.parameters == entry["parameters"]
    assert served.concurrency_limit == 2 and served.concurrency_options.collision_strategy == "CANCEL_NEW"
    (schedule,) = served.schedules
    assert schedule.schedule.cron == "0 3 * * *" and schedule.active is False and schedule.slug == "s"
    assert schedule.parameters == {"preset": "smoke"}


def test_the_environment_of_the_job_is_that_of_the_serving_process(monkeypatch):
    monkeypatch.setenv("MINE", "mine")
    monkeypatch.delenv("MARK", raising=False)
    variables = {"env": {"MARK": "set", "MINE": "theirs"}}
    deployment({**declared()[0], "work_pool": {"name": "genai", "job_variables": variables}})
    assert os.environ.pop("MARK") == "set" and os.environ["MINE"] == "mine"


def test_a_field_that_serving_would_lose_is_refused():
    with pytest.raises(ValueError, match="serving knows no version"):
        deployment({**declared()[0], "version": "3"})


def test_every_family_has_a_deployment():
    assert set(FAMILIES) <= {entry["name"] for entry in declared()}
    assert set(FAMILIES) <= {entry["name"] for entry in DOCUMENT["deployments"]}      # for workers too
