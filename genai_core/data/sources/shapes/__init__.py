"""The shapes in which people keep rows, read as records of our tables."""
