"""vLLM as a process of its own: how its command is found and composed, how it is ended, how it is asked.

It is in no environment of ours, since it pins versions of FastAPI and `transformers` that ours collide with.
"""
