"""The model card in each model directory: what made the model, and how good it is."""

from pathlib import Path
from typing import Any

from tasks.registered import USES
from tasks.registry.versions import key_figures
from tasks.store.artifacts import Artifact, KeyParts
from tasks.views.tables import flatten, markdown_table


def write_model_card(directory: Path, stage: str, parts: KeyParts, inputs: dict[str, Artifact],
                     metrics: dict[str, float]) -> str:
    """Write `README.md`. It holds only what the key determines, so that equal models have equal cards; its text."""
    lines = [f"# {stage} {parts.key}", "", USES[stage], "", "## Made from", ""]
    lines += [f"- {name}: `{artifact.key}` (digest `{artifact.digest[:16]}`)" for name, artifact in inputs.items()]
    lines += ["", "## Key figures", "", *_rows(key_figures(stage, metrics)), "", "## All figures", "",
              *_rows(metrics), "", "## Parameters", "", *_rows(flatten(parts.config)), "",
              "## Limits", "", "Trained on a small public corpus; it makes things up and repeats the biases of film "
              "reviews and encyclopedia articles. The licences of the data are in the data card of the collected "
              "dataset.", ""]
    text = "\n".join(lines)
    (directory / "README.md").write_text(text, encoding="utf-8")
    return text


def _rows(values: dict[str, Any]) -> list[str]:
    return markdown_table(["name", "value"], [[name, value] for name, value in values.items()])
