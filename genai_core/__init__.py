"""What a stage computes: plain Python and PyTorch, without an orchestrator, a tracker or a data versioner."""
