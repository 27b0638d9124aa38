"""Folk music: what counts as a tune that can be read, and as one in time."""

import pytest

pytest.importorskip("music21")

from genai_core.families.music.evaluation import _shares, _surplus

HEAD = "X:1\nT:A Tune\nM:C|\nL:1/8\nK:D\n"


@pytest.mark.parametrize(("body", "surplus"), [
    ("|DEFG ABcd|dcBA GFED|DEFG ABcd|D8|]", [0, 0]),
    ("|DEFG ABcd|dcBA GFED E|DEFG AB|DEFG ABcd|D8|]", [0.5, -1, 0]),
    ("|DEFG ABcd|dcBA GFED dcBA GFED dcB|DEFG ABcd|D8|]", [5.5, 0]),
    ("|DEFG ABcd|(3dcB AG FEDE|{f}DEFG ABcd|D8|]", [0, 0]),
    ("|DEFG ABcd|DEFG ABcd|\nM:6/8\n|DEF ABc|DEF ABc d|D6|]", [0, 0, 0.5]),
])
def test_a_bar_is_measured_by_its_metre(body, surplus):
    assert _surplus(f"{HEAD}{body}\n") == surplus


def test_what_is_no_tune_is_none_and_counts_as_not_read():
    assert _surplus("No tune at all.\n") is None and _surplus(f"{HEAD}|D|\n") is None
    assert _shares([None, [0.0] * 4 + [1.0], [0.0, 1.0]]) == {"parsed": 2 / 3, "in_time": 1 / 3}
