"""Fixtures of the fault tests."""

from fixtures_broker import apache_kafka, broker_address, secured_kafka, tansu

__all__ = ["apache_kafka", "broker_address", "secured_kafka", "tansu"]
