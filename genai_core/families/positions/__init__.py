"""How a transformer knows positions."""

KINDS = {"positional": "genai_core.families.positions.generation:open_positional"}
