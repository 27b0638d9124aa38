"""What MLflow is told: runs, curves, events."""
