"""Settings go in, where the audit lies and with which rights it is opened comes out."""

from pathlib import Path

from sluicegate.home import Home
from sluicegate.keys import read_secret
from sluicegate.schemas.errors import ConfigurationError
from sluicegate.settings import PREFIX, Settings
from sluicegate.sinks.clickhouse import AuditConfig


def audit_config(settings: Settings, home: Home, *, writes: bool = False, reads: bool = False) -> AuditConfig:
    """The audit of this installation: the folder of its home, or the ClickHouse server that the settings name.

    `writes`, `reads`: whose password the caller needs; a sink never holds the auditor's, nor an auditor the sink's.

    Raises:
        ConfigurationError: a password file is not set, missing or open to others.
    """
    if not settings.clickhouse_host:
        return AuditConfig(path=home.audit)
    return AuditConfig(
        host=settings.clickhouse_host,
        port=settings.clickhouse_port,
        secure=settings.clickhouse_scheme == "https",
        user=settings.clickhouse_user,
        password=_password("CLICKHOUSE_PASSWORD_FILE", settings.clickhouse_password_file) if writes else "",
        auditor=settings.clickhouse_auditor,
        auditor_password=(
            _password("CLICKHOUSE_AUDITOR_PASSWORD_FILE", settings.clickhouse_auditor_password_file) if reads else ""
        ),
    )


def _password(name: str, path: Path | None) -> str:
    if path is None:
        raise ConfigurationError(f"a ClickHouse server needs a password: set `{PREFIX}{name}` to its file")
    return read_secret(path)
