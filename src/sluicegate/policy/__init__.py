"""Tools for people who write policy: bundles in, findings, plans and explanations out; pure."""
