"""The broker: the only place that reads and appends records, and the only one that runs on Faust."""
