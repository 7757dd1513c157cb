"""What anybody may ask of the audit: SQL in, rows out, wherever the database lies; the contract between askers and
holders.
"""

from typing import Protocol

from sluicegate.sinks.clickhouse import AuditDatabase
from sluicegate.sinks.question import Result, run_sql


class Auditor(Protocol):
    """Answers questions about the audit and can change nothing in it."""

    def sql(self, text: str) -> Result:
        """Rows of one question, at most `clickhouse.AUDITOR_ROWS_MAX`.

        Raises:
            QuestionRefused: it does not only read the audit, or it cannot be answered.
            Unavailable: it costs too much, or the audit is away.
        """


class LocalAuditor:
    """Asks a database that this process holds open."""

    def __init__(self, database: AuditDatabase) -> None:
        self._database = database

    def sql(self, text: str) -> Result:
        """As `Auditor.sql`."""
        return run_sql(self._database, text)


def literal(value: str) -> str:
    """`value` as a string literal of ClickHouse's SQL."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
