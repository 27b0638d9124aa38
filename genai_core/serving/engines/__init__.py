"""Engines: processes that answer for one model, how each is chosen, started and spoken to."""
