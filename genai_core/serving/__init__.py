"""Answering requests over HTTP, in the form of OpenAI's API: thin around engines that exist."""
