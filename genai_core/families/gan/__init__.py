"""Generative adversarial networks."""

KINDS = {"gan": "genai_core.families.gan.generation:open_gan"}
