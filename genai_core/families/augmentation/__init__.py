"""Generated digits added to few real ones."""
