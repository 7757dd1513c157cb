"""Fixtures of the model runner's tests."""

from fixtures_model import tiny_dir, tiny_gguf

__all__ = ["tiny_dir", "tiny_gguf"]
