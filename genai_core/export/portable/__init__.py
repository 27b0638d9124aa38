"""A model without any library of ours: one file of parameters, and programs that read it."""
