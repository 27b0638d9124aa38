"""Weight-only quantization to eight and four bits, in the formats of GGUF."""
