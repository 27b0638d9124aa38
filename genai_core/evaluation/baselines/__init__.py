"""Figures that any model must beat."""
