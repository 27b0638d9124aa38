"""How a stage is executed: its key, its plan, its task, what it cost."""
