"""What the database says becomes one line that says what to do."""

import errno
from pathlib import Path

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError, ProgrammingError

from sluicegate.schemas.errors import ConfigurationError, SluicegateError, Unavailable
from sluicegate.sinks.auditor import literal
from sluicegate.sinks.clickhouse import AuditConfig, QuestionRefused, _private_temporary, statements, translated


@pytest.mark.parametrize(
    ("raised", "kind", "text"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), Unavailable, "disk of the audit is full"),
        (OSError(errno.EACCES, "Permission denied"), ConfigurationError, "check its path and rights"),
        (
            DatabaseError("Code: 243. DB::Exception: Cannot reserve 1.00 MiB", code=243),
            Unavailable,
            "disk of the audit is full",
        ),
        (
            DatabaseError("Code: 74. DB::Exception: write: No space left on device", code=74),
            Unavailable,
            "disk of the audit is full",
        ),
        (DatabaseError("Code: 241. DB::Exception: memory (version 26.9)", code=241), Unavailable, "gave up"),
        (DatabaseError("Code: 62. DB::Exception: Syntax error", code=62), QuestionRefused, "^Syntax error$"),
        (OperationalError("Error connecting"), Unavailable, "is the server up"),
        (ProgrammingError("Unable to open the chdb engine"), ConfigurationError, "another process"),
    ],
)
def test_errors_are_translated_at_the_edge(raised: Exception, kind: type[SluicegateError], text: str) -> None:
    with pytest.raises(kind, match=text) as found, translated():
        raise raised
    assert "\n" not in str(found.value)


def test_the_audit_is_a_folder_or_a_server() -> None:
    for wrong in ({}, {"path": Path("x"), "host": "y"}):
        with pytest.raises(ConfigurationError, match="exactly one"):
            AuditConfig(**wrong)  # type: ignore[arg-type]


def test_every_statement_of_the_ddl_is_cut_out_whole() -> None:
    found = {name: statements(name) for name in ("requests.sql", "decisions.sql", "views.sql", "users.sql")}
    assert {name: len(each) for name, each in found.items()} == {
        "requests.sql": 1, "decisions.sql": 4, "views.sql": 15, "users.sql": 6,
    }  # fmt: skip
    assert all(each.startswith("CREATE OR REPLACE VIEW") and "COMMENT '" in each for each in found["views.sql"])


def test_the_temporary_folder_is_private_and_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp" / "left.native").write_bytes(b"raw rows")
    _private_temporary(tmp_path)
    assert list((tmp_path / "tmp").iterdir()) == []
    assert (tmp_path / "tmp").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(("value", "wanted"), [("a", "'a'"), ("it's", r"'it\'s'"), ("\\", r"'\\'"), ("\\'", r"'\\\''")])
def test_literals_are_closed(value: str, wanted: str) -> None:
    assert literal(value) == wanted
