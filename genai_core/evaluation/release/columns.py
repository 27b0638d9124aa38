"""Which model of a run is held against which; apart from the gates, so that a gate changes no evaluation."""

from collections.abc import Collection

from genai_core.config.release import MODELS


def parent_of(model: str, tables: Collection[str]) -> str:
    """The column of the model that a model was made from, among those that there are."""
    made = [name for name in MODELS[:3] if name in tables]
    return made[-1] if model not in made else MODELS[max(0, MODELS.index(model) - 1)]
