"""Data that moved away from that of the release in service stops a run before anything is trained on it."""

import json

import pytest

from tests.end_to_end.conftest import copy_of

pytestmark = [pytest.mark.slow]

GATE = ("--set", 'clean.gates.text={"of": "rows", "most": 0.1}')


@pytest.fixture(scope="module")
def home(finished, tmp_path_factory):
    return copy_of(finished, tmp_path_factory.mktemp("drift") / "home")


def test_a_gate_changes_no_key_and_the_same_data_passes(home):
    before = home.artifacts("clean")
    done = home.genai("run", "--preset", "smoke", "--until", "tokenize", *GATE)
    assert "0 tasks executed, 3 cached" in done.stdout
    assert home.artifacts("clean") == before


def test_a_run_ends_where_the_data_moved_and_says_what_moved(home):
    refused = home.genai("run", "--preset", "smoke", *GATE, "--set", "clean.min_words=40", fails=True)
    assert "text: rows of all documents moved by" in refused.stderr and "at most 0.1 wanted" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert len(home.artifacts("tokenize")) == 1, "nothing was made from it"
    assert len(json.loads(home.genai("releases", "--json").stdout)) == 1


def test_a_gate_on_what_there_is_not_is_refused_before_anything_runs(home):
    for setting, told in (('{"of": "words", "most": 1}', "clean.gates.text.of"),
                          ('{"of": "rows", "most": 1, "source": "nowhere"}', "there is no source 'nowhere'")):
        refused = home.genai("run", "--preset", "smoke", "--set", f"clean.gates.text={setting}", fails=True)
        assert told in refused.stderr and len(refused.stderr.strip().splitlines()) == 1
