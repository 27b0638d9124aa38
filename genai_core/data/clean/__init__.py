"""The steps of cleaning, each a function of a text."""
