"""Every family as a user runs it, all in one workspace, so that each finds what another has made of the same inputs."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tasks.catalog import FAMILIES
from tests.end_to_end.conftest import DIFFUSION_TASKS, Home, copy_of, states
from tests.end_to_end.helpers import api_of

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Outcome:
    """What a run of a family said and left."""

    states: dict[str, str]
    evaluation: Path
    report: str


@dataclass
class Workshop:
    """A workspace in which each family runs once, when it is first asked for."""

    home: Home
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    def outcome(self, name: str) -> Outcome:
        if name not in self.outcomes:
            before = set(self.home.artifacts("evaluate"))
            output = self.home.genai("run", "--family", name, "--preset", "smoke").stdout
            (evaluation,) = set(self.home.artifacts("evaluate")) - before
            (report,) = [line.split()[1] for line in output.splitlines() if line.startswith("report:")]
            self.outcomes[name] = Outcome(states(output), evaluation, Path(report).read_text())
        return self.outcomes[name]

    def all_outcomes(self) -> dict[str, Outcome]:
        return {name: self.outcome(name) for name in FAMILIES}


@pytest.fixture(scope="module")
def workshop(diffusion, prefect, tmp_path_factory):
    """Begins with a family that has run already: what trains trains once."""
    home = copy_of(diffusion, tmp_path_factory.mktemp("families") / "home", PREFECT_API_URL=api_of(prefect))
    (report,) = home.root.glob("reports/*/report.html")
    made = dict.fromkeys(DIFFUSION_TASKS, "Completed")
    return Workshop(home, {"diffusion": Outcome(made, home.artifact("evaluate"), report.read_text())})


@pytest.mark.parametrize("name", FAMILIES)
def test_the_preset_smoke_runs(workshop, name):
    outcome = workshop.outcome(name)
    evaluation = json.loads((outcome.evaluation / "evaluation.json").read_text())
    pictures = json.loads((outcome.evaluation / "pictures.json").read_text())
    metrics = json.loads((outcome.evaluation / "manifest.json").read_text())["metrics"]
    assert set(FAMILIES[name].figures) & {figure for column in evaluation.values() for figure in column}
    for picture in pictures:
        assert (outcome.evaluation / picture).read_bytes().startswith(b"\x89PNG")
    assert metrics == {f"{column}/{figure}": value for column, figures in evaluation.items()
                       for figure, value in figures.items()}
    for gate in FAMILIES[name].load("laptop").promote.gates.values():
        for figure in (gate.figure, gate.reference or gate.figure):
            assert figure in metrics or figure.endswith("_labels"), figure


@pytest.mark.parametrize("name", FAMILIES)
def test_every_stage_of_it_runs_or_is_found_and_the_report_shows_them(workshop, name):
    outcome, family = workshop.outcome(name), FAMILIES[name]
    stages = [stage.name for stage in family.all_stages]
    assert [task for task in outcome.states if task != "version_data"] == stages and "version_data" in outcome.states
    found = {task for task, state in outcome.states.items() if state == "Cached"}
    of_others = {stage.name for other in FAMILIES.values() if other is not family for stage in other.all_stages}
    assert set(outcome.states.values()) <= {"Completed", "Cached"} and found <= of_others | {"version_data"}
    assert f"{family.title}: run report" in outcome.report and all(stage in outcome.report for stage in stages)


def test_what_one_family_made_another_finds(workshop):
    vae = workshop.outcome("vae").states
    assert {task for task, state in vae.items() if state == "Cached"} >= {
        "collect", "digits", "digit_classifier", "conditional_vae"}
    assert vae["vae"] == vae["collapsed_vae"] == vae["evaluate"] == "Completed"


def test_every_model_of_every_family_is_registered_and_in_service(workshop):
    workshop.all_outcomes()
    rows = workshop.home.models()
    models = {model for family in FAMILIES.values() for model in family.models}
    assert {row["stage"] for row in rows if "champion" in row["aliases"]} == models
    for row in rows:
        assert row["gates"] == "passed" and row["dvc_md5"] and Path(row["path"]).is_dir(), row


def test_the_table_and_the_page_of_families_have_them_all(workshop, tmp_path):
    outcomes = workshop.all_outcomes()
    rows = json.loads(workshop.home.genai("families", "--json").stdout)
    assert {row["name"]: Path(row["evaluation"]).name for row in rows} == {
        name: outcome.evaluation.name for name, outcome in outcomes.items()}
    assert all(row["lines"] and row["cost"]["seconds"] > 0 for row in rows)
    page = tmp_path / "families.md"
    workshop.home.genai("families", "--page", str(page))
    assert all(f"## {family.title}" in page.read_text() for family in FAMILIES.values())
