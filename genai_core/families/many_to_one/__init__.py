"""Recurrent cells from a text to its label."""
