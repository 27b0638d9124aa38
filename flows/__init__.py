"""Which stage follows which: the flows and the genai command."""
