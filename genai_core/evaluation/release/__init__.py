"""Whether a model may be released: comparisons and gates."""
