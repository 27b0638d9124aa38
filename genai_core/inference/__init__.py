"""Generation with a key-value cache, and chat on top of it."""
