"""Fixtures of the integration tests."""

from fixtures_model import smollm2_dir, smollm2_source

__all__ = ["smollm2_dir", "smollm2_source"]
