"""A bidirectional encoder: masked tokens, then few labels."""
