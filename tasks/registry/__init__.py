"""Registered models: their versions, where they come from, which one is in service."""
