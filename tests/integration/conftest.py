"""Fixtures of the integration tests."""

from fixtures_broker import broker_config, tansu, topology
from fixtures_model import smollm2_dir, smollm2_source

__all__ = ["broker_config", "smollm2_dir", "smollm2_source", "tansu", "topology"]
