"""What a model is worth: figures, and the baselines beside them."""
