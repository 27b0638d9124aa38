"""The one dial: `depth` sets the width, heads, learning rates and token budgets of the training stages.

Every value that it computes is part of the stages' configs, so it is printed, stored and may be overridden. It follows
nanochat's habit of one number for the whole model; the constants were set by the runs in docs/LOG.md.
"""

from typing import Any

HEAD_SIZE = 64


def dial(depth: int) -> dict[str, Any]:
    """Fields of the training stages for a depth: a preset's own values go on top."""
    hidden = HEAD_SIZE * depth
    heads = depth
    # AdamW's best rate falls with the square root of the width (nanochat); these fit a width of 192. A new model's
    # embedding and norms take more than those of one that is fine-tuned
    scale = (192 / hidden) ** 0.5
    learning_rate, of_a_new_model = round(3e-3 * scale, 6), round(8e-3 * scale, 6)
    feed_forward = round(hidden * 8 / 3 / 64) * 64       # SwiGLU with the parameters of a fourfold plain network
    parameters = depth * (hidden * hidden * 2 + 2 * hidden * heads_for_keys(heads) * HEAD_SIZE
                          + 3 * hidden * feed_forward)
    return {
        "pretrain": {
            "layers": depth, "hidden_size": hidden, "heads": heads, "key_value_heads": heads_for_keys(heads),
            "head_size": HEAD_SIZE, "feed_forward_size": feed_forward, "context_length": 256, "optimizer": "muon",
            "learning_rate": of_a_new_model, "matrix_learning_rate": 0.015, "batch_size": 16,
            # twenty tokens a matrix parameter (Hoffmann et al. 2022), in whole thousands
            "tokens": max(4096, parameters * 20 // 1000 * 1000),
        },
        "instruct": {"learning_rate": learning_rate, "matrix_learning_rate": 0.01, "optimizer": "muon",
                     "batch_size": 16, "context_length": 256, "decay_fraction": 0.9},
        "reward": {"learning_rate": round(learning_rate / 3, 6), "matrix_learning_rate": 0.005, "optimizer": "muon",
                   "batch_size": 64, "decay_fraction": 0.9, "weight_decay": 0.05},
        "rlhf": {"learning_rate": round(learning_rate / 13.5, 6), "kl_coefficient": 0.1, "batch_size": 128,
                 "replay_rows": 32, "replay_coefficient": 1.0, "decay_fraction": 0.6, "warmup_fraction": 0.05},
    }


def heads_for_keys(heads: int) -> int:
    """The largest divisor of the query heads that is at most half of them: grouped-query attention by two or more."""
    return max(divisor for divisor in range(1, max(2, heads // 2 + 1)) if heads % divisor == 0)
