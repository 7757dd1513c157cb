"""The commands of `sluicegate`, a module each: they parse, call and print; `cli.COMMANDS` is their table."""
