"""A family as a user runs it: every stage, cached the second time, registered, reported, generating, served."""

import json
import subprocess
import sys

import pytest

from tests.end_to_end.conftest import DIFFUSION_TASKS, Home, copy_of, states
from tests.end_to_end.helpers import api_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def copy(diffusion, prefect, tmp_path_factory):
    """A copy to which runs may be added."""
    return copy_of(diffusion, tmp_path_factory.mktemp("family") / "home", PREFECT_API_URL=api_of(prefect))


def test_a_second_run_finds_everything_and_a_changed_field_makes_what_depends_on_it(copy):
    again = states(copy.genai("run", "--family", "diffusion", "--preset", "smoke").stdout)
    assert again == dict.fromkeys(DIFFUSION_TASKS, "Cached")
    plan = json.loads(copy.genai("plan", "--family", "diffusion", "--preset", "smoke", "--set",
                                 "diffusion.guidance=3", "--json").stdout)
    assert [line["state"] for line in plan] == ["hit"] * 4 + ["miss", "unknown", "unknown"]
    assert plan[4]["why"] == "diffusion.guidance: 2.0 → 3.0"


def test_models_are_registered_with_their_lineage_and_the_report_has_the_pictures(diffusion):
    rows = {row["stage"]: row for row in diffusion.models()}
    assert set(rows) == {"digit_classifier", "conditional_vae", "diffusion"}
    assert all(row["aliases"] == ["champion", "candidate"] for row in rows.values())
    tree = json.loads(diffusion.genai("lineage", "models:/genai-diffusion@champion", "--json").stdout)
    assert tree["stage"] == "diffusion" and [node["stage"] for node in tree["inputs"]] == ["digits"]
    assert tree["inputs"][0]["inputs"][0]["sources"][0]["name"] == "mnist"
    assert "genai run --family diffusion --preset smoke --until diffusion" in tree["commands"]
    reports = sorted(diffusion.root.glob("reports/*/report.html"), key=lambda path: path.stat().st_mtime)
    page = reports[-1].read_text()
    logged = {path.name for path in diffusion.root.glob("mlartifacts/*/artifacts/pictures/*.png")}
    assert {"samples.png", "denoising.png", "guidance.png"} <= logged
    assert "Diffusion: run report" in page and page.count("data:image/png;base64,") >= 4


def test_it_generates_compares_and_is_listed(diffusion, tmp_path):
    out = tmp_path / "sevens.png"
    diffusion.genai("generate", "diffusion", "--class", "7", "--count", "3", "--out", str(out))
    assert out.read_bytes().startswith(b"\x89PNG")
    first = out.read_bytes()
    diffusion.genai("generate", "--model", "models:/genai-diffusion@champion", "--class", "7", "--count", "3", "--out",
                    str(out))
    assert out.read_bytes() == first
    refused = diffusion.genai("generate", "--class", "7", fails=True)
    assert "generate needs one model: models:/NAME@ALIAS" in refused.stderr
    refused = diffusion.genai("generate", "diffusion", "--class", "12", fails=True)
    assert refused.stderr.strip().endswith("--class 12: the classes are 0 to 9")
    refused = diffusion.genai("compare", "models:/genai-diffusion/1", "models:/genai-digit-classifier/1", fails=True)
    assert "a digit_classifier model is not in the table of evaluate" in refused.stderr
    (row,) = json.loads(diffusion.genai("families", "--json").stdout)
    assert row["name"] == "diffusion" and {line["column"] for line in row["lines"]} == {
        "diffusion", "without_guidance", "baseline", "real"}
    page = tmp_path / "families.md"
    diffusion.genai("families", "--page", str(page))
    assert "## Diffusion" in page.read_text() and (tmp_path / "families" / "diffusion-denoising.png").is_file()


def test_a_registered_model_answers_through_mlflow(diffusion):
    code = ("import mlflow; mlflow.set_tracking_uri('sqlite:///mlflow.db'); "
            "model = mlflow.pyfunc.load_model('models:/genai-diffusion@champion'); "
            "print(model.predict(['7'])[0][:11])")
    done = subprocess.run([sys.executable, "-c", code], cwd=diffusion.root, env=diffusion.environment, text=True,
                          capture_output=True, check=True)
    assert done.stdout.strip().endswith("iVBORw0KGgo")      # the first bytes of a PNG


def test_a_mistake_in_a_family_or_a_stage_is_one_line(tmp_path):
    home = Home(tmp_path)
    for arguments, message in ((["--family", "difusion"], "unknown family 'difusion'; there are"),
                               (["--family", "vae", "--preset", "gpu"], "unknown preset 'gpu'"),
                               (["--family", "vae", "--until", "pretrain"], "--until: unknown stage 'pretrain'"),
                               (["--family", "vae", "--set", "vae.betta=2"], "did you mean beta?")):
        failed = home.genai("run", *arguments, fails=True)
        assert message in failed.stderr and len(failed.stderr.strip().splitlines()) == 1
