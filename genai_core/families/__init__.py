"""The other generative families: a folder for what shares one model, shared parts beside them."""
