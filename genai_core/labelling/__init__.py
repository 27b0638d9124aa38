"""Which of two answers a person finds better: asked blind, kept as preferences, and how much people agree."""
