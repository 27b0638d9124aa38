"""Text as token ids: the tokenizer, the files, and the batches that are read from them."""
