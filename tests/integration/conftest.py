"""Fixtures of the integration tests."""

from fixtures_broker import broker_config, tansu, topology
from fixtures_model import smollm2_dir, smollm2_source
from fixtures_stack import stack

__all__ = ["broker_config", "smollm2_dir", "smollm2_source", "stack", "tansu", "topology"]
