"""The classes of the reviews that the classifying families learn, in the order of their outputs."""

LABELS = ("negative", "positive")
