"""The model directory that the ecosystem reads."""
