"""Recurrent cells from an image to its name."""

KINDS = {"one_to_many": "genai_core.families.one_to_many.evaluation:open_one_to_many"}
