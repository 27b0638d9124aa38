"""Variational autoencoders."""

KINDS = {"vae": "genai_core.families.vae.generation:open_vae"}
