"""Methods that raise a reward, or what people preferred, and what they have in common."""
