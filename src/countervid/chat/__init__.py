"""Talking to language models, with pictures or without: remote by the `openai` package, local by `transformers`."""
