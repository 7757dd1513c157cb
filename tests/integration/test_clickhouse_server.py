"""The audit on a ClickHouse server: its own client over HTTP, the engine behind it, accounts as `users.sql` has them.

What the engine here cannot show, and stays for a real server: that it takes these `CREATE USER` statements into its own
access storage, its `HOST` rules, and TLS.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from clickhouse_http import ADMIN, ADMIN_PASSWORD, ClickHouse, clickhouse_server
from unit.sinks import heron

from sluicegate import cli
from sluicegate.schemas.errors import ConfigurationError, SluicegateError, Unavailable
from sluicegate.sinks.clickhouse import (
    AUDITOR_SETTINGS,
    TABLE_FILES,
    AuditConfig,
    QuestionRefused,
    install,
    open_audit,
    statements,
    user_statements,
)
from sluicegate.sinks.queries import QUESTIONS
from sluicegate.sinks.rows import Table
from sluicegate.sinks.serve import asking
from sluicegate.sinks.sink import Sink
from sluicegate.sinks.story import story

PASSWORDS = {"password": "the sink's 'own'", "auditor_password": "the auditor's"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ClickHouse, AuditConfig]]:
    with clickhouse_server(tmp_path_factory.mktemp("server")) as (engine, port):
        config = AuditConfig(host="127.0.0.1", port=port, **PASSWORDS)
        install(config, user=ADMIN, password=ADMIN_PASSWORD)
        yield engine, config


@pytest.fixture(scope="module")
def landed(server: tuple[ClickHouse, AuditConfig]) -> heron.History:
    history = heron.company()
    with open_audit(dataclasses.replace(server[1], auditor_password="")) as database:
        sink = Sink(database, heron.TOPICS)
        for table, landings in history.landings.items():
            assert sink.land(heron.EPOCH, heron.topic(table), 0, landings) == len(landings)
            assert sink.faults(heron.EPOCH, heron.topic(table), 0) == ()
    return history


def sink_config(config: AuditConfig) -> AuditConfig:
    """What a sink's process holds: no password of the auditor's."""
    return dataclasses.replace(config, auditor_password="")


def auditor_config(config: AuditConfig) -> AuditConfig:
    return dataclasses.replace(config, password="")


def test_the_sink_lands_what_auditors_ask_for(server: tuple[ClickHouse, AuditConfig], landed: heron.History) -> None:
    engine, config = server
    with asking(auditor_config(config)) as auditor:
        counted = {
            table.value: auditor.sql(f"SELECT count() FROM {table} WHERE epoch = {heron.EPOCH}").rows[0][0]
            for table in Table
        }
        wanted = {table.value: len(landings) for table, landings in landed.landings.items()}
        assert counted == {**dict.fromkeys(counted, 0), **wanted}
        assert sum(counted.values()) > 20
        for each in QUESTIONS:
            auditor.sql(each.sql)
        row = auditor.sql("SELECT request_id FROM requests WHERE request_id != '' ORDER BY offset LIMIT 1").rows[0]
        assert story(auditor, str(row[0]))
    seen = engine.settings_seen[config.auditor]
    assert {name: seen[name] for name in AUDITOR_SETTINGS} == {n: str(v) for n, v in AUDITOR_SETTINGS.items()}


FORBIDDEN = (
    "DROP TABLE requests",
    "TRUNCATE TABLE decisions",
    "ALTER TABLE decisions DELETE WHERE 1",
    "ALTER TABLE decisions UPDATE reason = 'x' WHERE 1",
    "CREATE TABLE other (a Int64) ENGINE = MergeTree ORDER BY a",
    "INSERT INTO system.numbers SELECT 1",
    "SELECT * FROM file('/etc/passwd', 'LineAsString')",
    "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')",
    "GRANT ALL ON *.* TO sluicegate_sink",
    "CREATE USER x",
)


@pytest.mark.parametrize("account", ["writing", "reading"])
def test_no_account_can_change_or_leave_the_audit(
    server: tuple[ClickHouse, AuditConfig], landed: heron.History, account: str
) -> None:
    with open_audit(server[1]) as database:
        lent = getattr(database, account)
        let_through = []
        for sql in FORBIDDEN:
            try:
                with lent() as client:
                    client.command(sql)
            except SluicegateError:
                continue
            let_through.append(sql)
        assert let_through == []
        # The control: the same account does what it may.
        with lent() as client:
            assert int(str(client.command("SELECT count() FROM requests"))) > 0


def test_an_auditor_adds_nothing_and_a_sink_does(server: tuple[ClickHouse, AuditConfig], landed: heron.History) -> None:
    config = server[1]
    landings = landed.landings[Table.REQUESTS][:1]
    with open_audit(dataclasses.replace(config, user=config.auditor, password=config.auditor_password)) as database:
        sink = Sink(database, heron.TOPICS)
        with pytest.raises(SluicegateError, match=r"readonly|privileges"):
            sink.land(heron.EPOCH + 1, heron.topic(Table.REQUESTS), 0, landings)
    with open_audit(sink_config(config)) as database:
        assert Sink(database, heron.TOPICS).land(heron.EPOCH + 1, heron.topic(Table.REQUESTS), 0, landings) == 1


def test_a_wrong_password_is_a_setting_to_mend_and_a_server_that_is_away_is_not(
    server: tuple[ClickHouse, AuditConfig], landed: heron.History
) -> None:
    engine, config = server
    wrong = dataclasses.replace(config, password="guessed", auditor_password="guessed")
    with pytest.raises(ConfigurationError, match="password"), open_audit(wrong) as database, database.writing():
        pass
    with pytest.raises(ConfigurationError, match="password"), asking(wrong) as auditor:
        auditor.sql("SELECT 1")
    with pytest.raises(QuestionRefused, match="nowhere"), asking(config) as auditor:
        auditor.sql("SELECT count() FROM requests WHERE nowhere = 1")
    engine.down = True
    try:
        with pytest.raises(Unavailable), asking(config) as auditor:
            auditor.sql("SELECT count() FROM requests")
    finally:
        engine.down = False
    with asking(config) as auditor:
        assert auditor.sql("SELECT count() FROM requests").rows


def test_installing_again_changes_the_passwords_and_keeps_the_rows(
    server: tuple[ClickHouse, AuditConfig], landed: heron.History
) -> None:
    engine, config = server
    with asking(config) as auditor:
        before = auditor.sql("SELECT count() FROM requests").rows
    other = dataclasses.replace(config, auditor_password="another one")
    install(other, user=ADMIN, password=ADMIN_PASSWORD, networks=["10.0.0.0/8", "127.0.0.1"])
    try:
        assert engine.accounts[config.auditor].hosts == "IP '10.0.0.0/8', IP '127.0.0.1/32'"
        with asking(other) as auditor:
            assert auditor.sql("SELECT count() FROM requests").rows == before
        with pytest.raises(ConfigurationError, match="password"), asking(config) as auditor:
            auditor.sql("SELECT 1")
    finally:
        install(config, user=ADMIN, password=ADMIN_PASSWORD)


def test_only_the_administrator_installs(server: tuple[ClickHouse, AuditConfig]) -> None:
    config = server[1]
    for user, password in ((config.user, config.password), (ADMIN, "guessed")):
        with pytest.raises(ConfigurationError, match=r"use an administrator|does not let this account in"):
            install(config, user=user, password=password)


def test_it_is_installed_and_asked_as_a_person_types_it(
    server: tuple[ClickHouse, AuditConfig], landed: heron.History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    engine, config = server
    settings = {
        "home": str(tmp_path / "home"), "clickhouse_host": "127.0.0.1", "clickhouse_port": str(config.port),
        "clickhouse_scheme": "http", "clickhouse_password_file": str(tmp_path / "sink"),
        "clickhouse_auditor_password_file": str(tmp_path / "auditor"),
    }  # fmt: skip
    secrets = {"sink": config.password, "auditor": config.auditor_password, "admin": ADMIN_PASSWORD}
    for name, secret in secrets.items():
        (tmp_path / name).write_text(secret + "\n")
        (tmp_path / name).chmod(0o600)
    for name, value in settings.items():
        monkeypatch.setenv(f"SLUICEGATE_{name.upper()}", value)
    assert cli.main(["audit", "install", "--admin-password-file", str(tmp_path / "admin")]) == 0
    assert cli.main(["audit", "sql", "SELECT count() > 0 AS found FROM requests", "--json"]) == 0
    assert '{"found": 1}' in capsys.readouterr().out
    (tmp_path / "auditor").chmod(0o644)
    assert cli.main(["audit", "sql", "SELECT 1"]) == 2
    said = capsys.readouterr()
    assert "chmod 600" in said.err
    assert not any(secret in said.out + said.err for secret in secrets.values())
    assert not any(secret in sql for _, sql in engine.statements for secret in secrets.values())
    monkeypatch.delenv("SLUICEGATE_CLICKHOUSE_HOST")
    assert cli.main(["audit", "install", "--admin-password-file", str(tmp_path / "admin")]) == 2


def test_every_statement_of_the_schema_is_one_that_the_engine_parses(
    server: tuple[ClickHouse, AuditConfig], landed: heron.History
) -> None:
    """The statements about users too, which the embedded engine cannot carry out: it keeps no accounts."""
    engine, config = server
    made = [*user_statements(config), *user_statements(config, ["10.1.0.0/16", "::1"])]
    made += [each for name in (*TABLE_FILES, "views.sql") for each in statements(name)]
    assert len(made) > 20
    client = engine._client_of(ADMIN, "sluicegate")
    for each in made:
        assert b"Create" in (tree := client.raw_query(f"EXPLAIN AST {each}")) or b"Grant" in tree or b"Alter" in tree
    with pytest.raises(Exception, match="Syntax error"):
        client.raw_query(f"EXPLAIN AST {made[0].replace('IDENTIFIED', 'KNOWN')}")


@pytest.mark.parametrize(
    ("changes", "networks", "text"),
    [
        ({"password": ""}, (), "needs a password"),
        ({"auditor_password": ""}, (), "needs a password"),
        ({"user": "x; DROP"}, (), "cannot be an account"),
        ({"user": "SINK_IDENTITY"}, (), None),
        ({}, ("10.0.0.0/33",), "no networks"),
        ({}, ("' OR '",), "no networks"),
    ],
)
def test_what_cannot_be_an_account_is_refused(
    changes: dict[str, str], networks: tuple[str, ...], text: str | None
) -> None:
    config = dataclasses.replace(AuditConfig(host="h", **PASSWORDS), **changes)  # type: ignore[arg-type]
    if text is None:
        assert all("AUDITOR" not in each for each in user_statements(config, networks))
        return
    with pytest.raises(ConfigurationError, match=text):
        user_statements(config, networks)
