"""The warmup-stable-decay learning-rate schedule (Hu et al. 2024, section 4)."""

from genai_core.config.training import TrainConfig


def learning_rate_factor(step: int, steps: int, config: TrainConfig) -> float:
    """Share of the peak learning rate at `step` of `steps`: linear up, constant, linear down to the final share."""
    warmup = max(1, round(config.warmup_fraction * steps))
    decay = round(config.decay_fraction * steps)
    if step < warmup:
        return (step + 1) / warmup
    if step < steps - decay:
        return 1.0
    left = (steps - 1 - step) / max(1, decay - 1)
    return config.final_learning_rate_fraction + (1 - config.final_learning_rate_fraction) * left
