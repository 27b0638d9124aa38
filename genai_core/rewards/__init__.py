"""What RLHF raises: the reward model, answers that can be verified, functions of installed packages, and their sum."""
