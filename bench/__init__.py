"""Measurements, run by hand: `python -m bench.enforcer`. Nothing here is installed or imported by the product."""
