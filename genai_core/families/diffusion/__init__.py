"""Denoising diffusion."""

KINDS = {"diffusion": "genai_core.families.diffusion.generation:open_diffusion"}
