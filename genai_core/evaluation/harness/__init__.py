"""Tasks of EleutherAI's lm-evaluation-harness in our table: asked of every model of a run, the quantized ones too.

The tasks are YAML files of one folder with their data beside them, so that its digest says what the figures depend on.
The harness words the questions and makes the figures; log-probabilities and answers are our engine's. It is a package
that is imported when a task is named (extra `lm-eval`).
"""
