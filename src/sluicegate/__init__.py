"""Sluicegate: requests to a language model go in, decided, limited, redacted and recorded answers come out."""
