"""Curves with gaps: a skipped step leaves no value, and whoever reads curves copes with it."""

import json
import math

import pytest

from genai_core.families.classification import evaluation as classification
from genai_core.families.gan import evaluation as gan
from genai_core.families.positions import evaluation as positions
from genai_core.families.report import Pictures
from genai_core.training.curves import last_values, read_curves

GAPS = [[1, 3.0], [2, None], [3, 2.0], [4, None]]
NOTHING = [[1, None], [2, None]]


def write(directory, **curves):
    directory.mkdir()
    (directory / "curves.json").write_text(json.dumps(curves))
    return directory


def test_reading_leaves_out_what_was_not_finite(tmp_path):
    assert read_curves(write(tmp_path / "model", loss=GAPS, accuracy=NOTHING)) == {"loss": [(1, 3.0), (3, 2.0)]}


def test_a_figure_whose_last_value_was_not_finite_is_not_a_number():
    """Not the value before it: a gate must not pass on a figure that the final model does not have."""
    assert math.isnan(last_values({"validation_loss": [(5, 1.0), (9, None)]}, "validation_loss")["validation_loss"])


@pytest.mark.parametrize(("draw", "curves"), [
    (positions._draw, ["loss"]),
    (gan._draw_monitor, ["classes_covered", "frechet_distance"]),
    (classification._draw_curves, ["validation_accuracy"]),
])
def test_charts_are_drawn_of_trainings_with_skipped_steps(tmp_path, draw, curves):
    models = {"gaps": write(tmp_path / "gaps", **dict.fromkeys(curves, GAPS)),
              "nothing": write(tmp_path / "nothing", **dict.fromkeys(curves, NOTHING))}
    pictures = Pictures(tmp_path)
    draw(models, pictures)
    assert all((tmp_path / name).stat().st_size > 1000 for name in pictures.captions)
