"""The model card in each model directory: what made the model, and how good it is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.stage import Stage
from tasks.store import records
from tasks.store.artifacts import CARD, Artifact, KeyParts
from tasks.tables import flatten, markdown_table


def write_model_card(directory: Path, stage: Stage, parts: KeyParts, inputs: Mapping[str, Artifact],
                     metrics: dict[str, float]) -> str:
    """Write `README.md`; its text. It is outside the artifact's digest, so it may name what made the model here."""
    lines = [f"# {stage.name} {parts.key}", "", stage.use, "", "## Made from", ""]
    lines += [f"- {name}: `{artifact.key}` (digest `{artifact.digest[:16]}`)" for name, artifact in inputs.items()]
    key_figures = {name: metrics[name] for name in stage.figures if name in metrics}
    lines += ["", "## Key figures", "", *_rows(key_figures), "", "## All figures", "", *_rows(metrics), "",
              "## Parameters", "", *_rows(flatten(parts.config)), "",
              "## Limits", "", "It makes things up and repeats the mistakes and biases of its data. The licences of "
              "the data are in the data card of the collected dataset.", ""]
    lines += ["## Made with", "", *_rows(records.environment()), ""]
    text = "\n".join(lines)
    (directory / CARD).write_text(text, encoding="utf-8")
    return text


def _rows(values: dict[str, Any]) -> list[str]:
    return markdown_table(["name", "value"], [[name, value] for name, value in values.items()])
