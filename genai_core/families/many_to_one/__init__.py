"""Recurrent cells from a text to its label."""

KINDS = {"many_to_one": "genai_core.families.many_to_one.generation:open_many_to_one"}
