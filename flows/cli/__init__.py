"""The `genai` command and what it shows while it works."""
