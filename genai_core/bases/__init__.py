"""Base models from outside: where they come from, whether they can be used, and how they become a model directory."""
