"""Recurrent language models."""

KINDS = {"recurrent": "genai_core.families.recurrent.generation:open_recurrent"}
