"""Fixtures of the integration tests."""

from fixtures_broker import apache_kafka, broker_address, broker_config, secured_kafka, tansu, topology
from fixtures_model import smollm2_dir, smollm2_source
from fixtures_stack import stack
from secured_tenant import deployed, untouched

__all__ = [
    "apache_kafka",
    "broker_address",
    "broker_config",
    "deployed",
    "secured_kafka",
    "smollm2_dir",
    "smollm2_source",
    "stack",
    "tansu",
    "topology",
    "untouched",
]
