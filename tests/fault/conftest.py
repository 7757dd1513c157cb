"""Fixtures of the fault tests."""

from fixtures_broker import tansu

__all__ = ["tansu"]
