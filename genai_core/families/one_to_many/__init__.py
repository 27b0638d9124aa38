"""Recurrent cells from an image to its name."""
