"""The language model and the reward model, the interface that others share, and how any model is opened."""
