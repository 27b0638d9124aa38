"""The pipeline in words that run: one file a stage, read from top to bottom."""
