"""The commands of `genai`, a file for each thing that people do with it."""
