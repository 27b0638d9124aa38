"""What the evaluation of a family leaves: one table of figures, samples, and pictures with their captions."""

import json
from pathlib import Path
from typing import Any

from genai_core.context import Result

Columns = dict[str, dict[str, float]]
"""Figures of each model or baseline, by its name."""

Samples = list[dict[str, Any]]
"""Samples of a model: task, prompt, what people answered and what the model did."""

DATA = "data-"
"""Beginning of the names of pictures that show records of the dataset: reports have them, published pages do not."""


class Pictures:
    """PNG files of an evaluation, and the caption of each."""

    def __init__(self, out_dir: Path):
        self.directory = out_dir
        self._captions: dict[str, str] = {}

    def add(self, name: str, caption: str) -> Path:
        """Path at which to write the picture `name`."""
        self._captions[f"{name}.png"] = caption
        return self.directory / f"{name}.png"

    @property
    def captions(self) -> dict[str, str]:
        return dict(self._captions)


def write_evaluation(columns: Columns, pictures: Pictures, out_dir: Path,
                     samples: dict[str, Samples] | None = None) -> Result:
    """Write `evaluation.json`, `pictures.json` and `samples.json`. The result has every figure as `column/figure`."""
    for name, value in (("evaluation", columns), ("pictures", pictures.captions), ("samples", samples or {})):
        text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
        (out_dir / f"{name}.json").write_text(text, encoding="utf-8")
    return Result({f"{column}/{name}": value for column, figures in columns.items() for name, value in figures.items()})
