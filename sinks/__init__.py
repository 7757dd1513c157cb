"""The audit: records go in, rows and answers about them come out; the only place that speaks to the database."""
