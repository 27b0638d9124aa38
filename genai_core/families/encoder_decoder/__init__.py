"""Models that turn one text into another: recurrent (many to many, sequence to sequence) and transformer (T5)."""
