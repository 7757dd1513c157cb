"""The gate: a request and the policy state go in, a sealed decision comes out; no clock, file, network or chance."""
