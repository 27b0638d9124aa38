"""The one training loop, its optimizers and schedule, and one file per objective."""
