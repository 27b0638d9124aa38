"""How a transformer knows positions."""
