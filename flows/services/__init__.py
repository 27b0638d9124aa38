"""Servers and deployments on this machine: how they are started, watched and stopped."""
