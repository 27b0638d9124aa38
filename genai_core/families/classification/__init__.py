"""What the classifiers of reviews share."""
