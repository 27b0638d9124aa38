"""Code completion."""
