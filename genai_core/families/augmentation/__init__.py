"""Made digits added to few real ones."""
