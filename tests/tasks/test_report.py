"""The report: what models and datasets say is text, never markup."""

from pathlib import Path

import pytest
from jinja2 import Environment, FileSystemLoader

from tasks.store.cost import Cost
from tasks.tables import flatten, markdown_table, shown
from tasks.views.report import _markdown, _plot

ATTACK = "<script>alert(1)</script> {{ 7 * 7 }} | `code` <img src=x onerror=alert(1)>"

CONTENT = {
    "stages": [], "models": ["base"], "table": [["bits_per_byte", 1.5]], "gates": [], "flow_run": "f",
    "commit": "c" * 40,
    "dataset_md5": "d", "total_seconds": 1.0, "cost": Cost(5.0, 1e9, 0.25, 0.5, "EUR"),
    "title": "Language model of depth 1",
    "licences": {"source": {"licence": "MIT", "attribution": "them"}},
    "samples": [{"task": "trivia", "asked": ATTACK, "expected": ATTACK, "answers": {"base": ATTACK}}],
}


def test_html_escapes_what_models_say():
    environment = Environment(loader=FileSystemLoader(Path(__file__).parents[2] / "tasks" / "views"), autoescape=True)
    page = environment.get_template("report.html.jinja").render(images={}, shown=shown, **CONTENT)
    assert "<script>" not in page and "<img src=x" not in page
    assert "&lt;script&gt;" in page and "{{ 7 * 7 }}" in page


def test_markdown_escapes_what_models_say():
    text = _markdown(CONTENT)
    assert "<script>" not in text and "<img" not in text and "`code`" not in text
    assert "| bits_per_byte | 1.5 |" in text
    assert "To make everything once: 5.0 s, 1e+09 FLOP, about 0.25 Wh, 0.5000 EUR (energy is an estimate)." in text


@pytest.mark.parametrize("values", [[1.0, None, 2.0], [None, None, None]])
def test_curves_of_trainings_with_skipped_steps_are_plotted(values):
    points = list(enumerate(values))
    assert _plot({"loss": points, "bits_per_byte": [(0, 2.0)]}, "pretrain")
    assert _plot({"loss": points}, "pretrain")


def test_tables():
    assert flatten({"a": {"b": 1, "c": {"d": 2}}, "e": 3}) == {"a.b": 1, "a.c.d": 2, "e": 3}
    assert markdown_table(["x"], [[12345.678], [0.123456], [7], ["a|b"]]) == [
        "| x |", "|---|", "| 12,346 |", "| 0.1235 |", "| 7 |", "| a\\|b |"]


@pytest.mark.parametrize(("value", "text"), [(float("nan"), "nan"), (-1.3e-17, "0"), (1e-9, "1e-09"),
                                             (12345.6, "12,346")])
def test_what_is_left_of_zero_is_shown_as_zero_and_what_is_no_number_is_not(value, text):
    assert shown(value) == text
