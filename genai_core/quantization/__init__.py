"""Weight-only quantization to eight and four bits."""
