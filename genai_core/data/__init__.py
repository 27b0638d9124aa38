"""From declared sources to token files: collecting, cleaning, tokenizing, chats, preferences and batches."""
