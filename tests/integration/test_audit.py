"""The audit answers what auditors ask, finds what must never be, and lets nobody do more than ask."""

import asyncio
import io
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from unit.sinks import heron

from sluicegate.schemas.codec import decode, encode
from sluicegate.schemas.errors import ConfigurationError, Unavailable
from sluicegate.schemas.events import GenerationFinished
from sluicegate.sinks.auditor import LocalAuditor
from sluicegate.sinks.clickhouse import AUDITOR_ROWS_MAX, AuditConfig, AuditDatabase, QuestionRefused, open_audit
from sluicegate.sinks.queries import QUESTIONS, question
from sluicegate.sinks.question import Result, run_sql
from sluicegate.sinks.rows import Table
from sluicegate.sinks.serve import AuditClient, asking, serving
from sluicegate.sinks.sink import Sink
from sluicegate.sinks.story import NoSuchRequest, story
from sluicegate.sinks.story_view import render


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audit") / "audit"


@pytest.fixture(scope="module")
def database(folder: Path) -> Iterator[AuditDatabase]:
    with open_audit(AuditConfig(path=folder)) as opened:
        sink = Sink(opened, heron.TOPICS)
        for table, landings in heron.company().landings.items():
            sink.land(heron.EPOCH, heron.topic(table), 0, landings)
        yield opened


def rows(database: AuditDatabase, sql: str) -> list[tuple[object, ...]]:
    return list(run_sql(database, sql).rows)


# ---- the views -------------------------------------------------------------------------------------------------------


def test_who_asked_what_and_why_it_was_allowed_or_denied(database: AuditDatabase) -> None:
    found = rows(
        database, "SELECT request_id, principal, verdict, code, policies, outcome, answer FROM asks ORDER BY offset"
    )
    assert len(found) == 7
    assert found[2] == (
        "demo-06", 'User::"ian.intern"', "ALLOW", "OK", ["interns-may-practise"], "RELEASED",
        "Priya Shah earns [withheld] a year.",
    )  # fmt: skip
    assert found[3] == (
        "demo-07",
        'User::"ana.support"',
        "DENY",
        "DENIED",
        ["purpose-must-be-assigned"],
        "DENIED",
        None,
    )
    assert found[6] == (None, None, "DENY", "POISON", [], "REFUSED", None)


def test_every_use_of_a_field_and_who_saw_it(database: AuditDatabase) -> None:
    assert rows(database, question("salary").sql) == [
        ("demo-05", 'User::"pia.people"', "admitted", ["people-team-reads-pay"], "RELEASED", 'User::"pia.people"'),
        ("demo-06", 'User::"ian.intern"', "withheld", [], "RELEASED", None),
    ]


def test_which_answers_rested_on_a_field_is_one_question(database: AuditDatabase) -> None:
    found = rows(database, question("rested-on").sql)
    assert [row[:5] for row in found] == [
        ("demo-05", 'User::"pia.people"', ["people-team-reads-pay"], ["x-1"], len("41,500 pounds"))
    ]
    # Whoever got a label in its place did not rest on it, and no byte of any prompt is without a source.
    withheld = "SELECT request_id, bytes FROM prompt_materials WHERE source = 'withheld:people.salary'"
    assert rows(database, withheld) == [("demo-06", len("[withheld]"))]
    missing = """SELECT request_id FROM decisions WHERE effective = 1
        AND arraySum(arrayMap(m -> m.bytes, materials))
            != arraySum(arrayMap(p -> arraySum(arrayMap(s -> length(s.text), p.segments)), prompt))"""
    assert rows(database, missing) == []
    assert rows(database, "SELECT count() > 2 FROM decisions WHERE notEmpty(materials)") == [(True,)]


def test_what_was_changed_with_whom_it_met_and_why(database: AuditDatabase) -> None:
    found = rows(database, "SELECT kind, name, detail, times, request_id, roles, policies FROM changes ORDER BY kind")
    assert found == [
        ("aliased", "unreleased-bikes", "Project 12", 1, "demo-09", ["intern"], ["unreleased-names-stay-inside"]),
        ("clamped", "max_tokens", "200 to 24", 1, "demo-06", ["intern"], ["interns-may-practise"]),
        (
            "redacted",
            "IBAN",
            "last4 by iban",
            1,
            "demo-11",
            ["finance"],
            ["contact-data-stays-with-support", "every-answer"],
        ),
        ("unsupported", "UNSUPPORTED", "", 1, "demo-05", ["people"], ["every-answer"]),
        ("withheld", "people.salary", "", 1, "demo-06", ["intern"], []),
    ]


def test_denials_dead_letters_and_void_records(database: AuditDatabase) -> None:
    assert [row[0] for row in rows(database, "SELECT policy FROM denials_by_policy ORDER BY policy")] == [
        "",
        "purpose-must-be-assigned",
    ]
    assert rows(database, "SELECT offset, code, value_hex, bytes FROM dead_letters") == [
        (6, "POISON", "C301FF00746F726E", 8)
    ]
    assert rows(database, "SELECT kind, offset, reason FROM void_records ORDER BY kind") == [
        ("decisions", 7, "it carries no seal"),
        ("shadow", 8, "no seal"),
    ]


def test_every_question_of_the_demo_is_one_that_auditors_may_ask(database: AuditDatabase) -> None:
    assert len(QUESTIONS) == 6
    for each in QUESTIONS:
        assert bool(rows(database, each.sql)) is not each.wants_none, each.text


def test_inferences_without_one_allow_are_found(database: AuditDatabase) -> None:
    """Invariant 1: nothing when all is well, and exactly what is planted."""
    sql = "SELECT offset, allows FROM inferences_without_one_allow ORDER BY offset"
    assert rows(database, sql) == []
    sink = Sink(database, heron.TOPICS)
    topic = heron.topic(Table.GENERATIONS)
    history = heron.company()
    genuine = decode(history.landings[Table.GENERATIONS][0].record.value, GenerationFinished)
    frontier = sink.frontier(heron.EPOCH, topic, 0)
    planted = [
        (replace(genuine.source, offset=77), genuine.decision_id, 0),  # no decision at all
        (replace(genuine.source, offset=3), "d3-0-3", 0),  # a denial
        (replace(genuine.source, offset=7), "d3-0-0", 0),  # an allow that is not effective
        (replace(genuine.source, offset=1), "d3-0-0", 1),  # somebody else's allow
        (genuine.source, genuine.decision_id, None),  # a genuine one
    ]
    landings = []
    for index, (source, name, _) in enumerate(planted):
        value = encode(replace(genuine, source=source, decision_id=name))
        landing = history.landings[Table.GENERATIONS][0]
        landings.append(replace(landing, record=replace(landing.record, offset=frontier + index, value=value)))
    sink.land(heron.EPOCH, topic, 0, landings)
    assert rows(database, sql) == [
        (frontier + index, allows) for index, (_, _, allows) in enumerate(planted) if allows is not None
    ]


def test_coverage_finds_what_is_missing_or_there_twice(
    tmp_path_factory: pytest.TempPathFactory, database: AuditDatabase
) -> None:
    """Invariant 3: each request offset has one effective decision, generation and release."""
    sink = Sink(database, heron.TOPICS)
    history = heron.company()
    decisions = history.landings[Table.DECISIONS]
    twice = [
        replace(each, record=replace(each.record, offset=index))
        for index, each in enumerate([decisions[0], *decisions])
    ]
    for epoch, changed in (
        (0, {}),
        (1, {Table.DECISIONS: decisions[:6], Table.RELEASES: []}),
        (2, {Table.DECISIONS: twice}),
    ):
        for table, landings in history.landings.items():
            sink.land(epoch, heron.topic(table), 0, changed.get(table, landings))
    sql = "SELECT stage, problem, first_offset, last_offset FROM coverage WHERE epoch = {} ORDER BY stage, first_offset"
    assert rows(database, sql.format(0)) == []
    assert [row for row in rows(database, sql.format(1)) if row[0] != "generations"] == [
        ("decisions", "no effective record", 6, 6),
        ("releases", "no effective record", 0, 7),
    ]
    assert ("decisions", "more than one effective record", 0, 0) in rows(database, sql.format(2))


# ---- auditors' SQL ---------------------------------------------------------------------------------------------------

REFUSED = (
    "SELECT * FROM file('/etc/passwd', 'LineAsString')",
    "SELECT file('/etc/passwd')",
    "SELECT * FROM (SELECT * FROM file('/etc/passwd', 'LineAsString'))",
    "SELECT 1 WHERE 1 IN (SELECT 1 FROM file('/etc/passwd', 'LineAsString'))",
    "WITH x AS (SELECT * FROM file('/etc/passwd', 'LineAsString')) SELECT * FROM x",
    "SELECT * FROM asks AS a JOIN file('/etc/passwd', 'LineAsString') AS b ON 1 = 1",
    "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')",
    "SELECT * FROM s3('http://127.0.0.1:1/a', 'key', 'secret')",
    "SELECT * FROM remote('127.0.0.1', system.one)",
    "SELECT * FROM executable('id', 'LineAsString', 'x String')",
    "SELECT * FROM mysql('127.0.0.1:1', 'a', 'b', 'c', 'd')",
    "SELECT * FROM merge('system', '.*')",
    "SELECT * FROM dictionary('x')",
    "SELECT * FROM view(SELECT 1)",
    "SELECT dictGet('x', 'y', 1)",
    "SELECT * FROM system.users",
    "SELECT * FROM system.processes",
    "SELECT * FROM `system`.`disks`",
    "SELECT * FROM SYSTEM.settings",
    "SELECT * FROM information_schema.tables",
    "SELECT 1 IN system.one",
    "SELECT * FROM default.x",
    "ALTER TABLE decisions DELETE WHERE 1",
    "ALTER TABLE decisions UPDATE code = 'OK' WHERE 1",
    "DELETE FROM decisions WHERE 1",
    "INSERT INTO decisions (epoch) VALUES (1)",
    "INSERT INTO FUNCTION file('/tmp/x') SELECT 1",
    "DROP TABLE decisions",
    "TRUNCATE TABLE decisions",
    "CREATE TABLE x (a Int8) ENGINE = Memory",
    "CREATE TEMPORARY TABLE x (a Int8)",
    "CREATE FUNCTION f AS x -> x",
    "ATTACH TABLE decisions",
    "DETACH TABLE decisions",
    "SYSTEM FLUSH LOGS",
    "SYSTEM SHUTDOWN",
    "SET readonly = 0",
    "SET max_result_rows = 0",
    "GRANT ALL ON *.* TO default",
    "BACKUP DATABASE sluicegate TO File('/tmp/x')",
    "USE system",
    "KILL QUERY WHERE 1",
    "SELECT 1 SETTINGS readonly = 0",
    "SELECT * FROM (SELECT 1 SETTINGS max_memory_usage = 0)",
    "SELECT * FROM asks INTO OUTFILE '/tmp/sluicegate-outfile'",
    "SELECT * FROM asks FORMAT CSV",
    "SELECT 1; DROP TABLE decisions",
    "SELECT 1; SELECT 2",
    "SELECT sleep(3)",
    "SELECT getSetting('readonly')",
    "SELECT getMacro('x')",
    "SELECT hostName(), currentUser(), serverUUID()",
    "SELECT demangle('x')",
    "SELECT * APPLY(hostName) FROM asks",
    "SELECT arrayMap(x -> file(x), ['/etc/passwd'])",
    "EXPLAIN SELECT 1",
    "SHOW TABLES",
    "DESCRIBE TABLE file('/etc/passwd')",
    "graph = 1",
    "SELECT {x:String}",
    "SELECT `a\n Function count` FROM file('/etc/passwd')",
    "SELECT " + ", ".join(["1"] * 6000) + " FROM file('/etc/passwd')",
    "SELECT 1 /*" + "x" * 60_000 + "*/",
    "",
    ";",
    "nonsense",
    "SELECT 'a",
)
PASSED = (
    "SELECT 1",
    "select count(*) from asks;",
    "SELECT * FROM sluicegate.asks LIMIT 1",
    "SELECT a.request_id, d.code FROM asks AS a LEFT JOIN decisions AS d ON d.decision_id = a.decision_id WHERE a.ran",
    "WITH x AS (SELECT principal, count() AS n FROM asks GROUP BY principal) SELECT * FROM x WHERE n > 1 ORDER BY n",
    "SELECT request_id, row_number() OVER (PARTITION BY principal ORDER BY timestamp) AS nth FROM asks",
    "SELECT sum(output_tokens) OVER w FROM generations WINDOW w AS (ORDER BY offset)",
    "SELECT r.action, countIf(r.allowed) FROM decisions ARRAY JOIN rulings AS r GROUP BY r.action",
    "SELECT toStartOfHour(timestamp) AS hour, uniqExact(principal) FROM asks GROUP BY hour",
    "SELECT arrayMap(x -> upper(x), withheld), obligations[1].name, prompt[1].segments.text FROM decisions",
    "SELECT principal, quantile(0.9)(length(answer)) FROM asks GROUP BY principal WITH TOTALS",
    "SELECT request_id FROM asks WHERE principal IN (SELECT principal FROM field_uses WHERE field LIKE 'people.%')",
    "SELECT CASE WHEN code = 'OK' THEN 'yes' ELSE 'no' END, CAST(offset AS String), offset::Float64 FROM decisions",
    "SELECT JSONExtractString(content, 'entities', 1, 'uid', 'id') FROM policy WHERE kind = 'DIRECTORY'",
    "SELECT offset FROM requests UNION ALL SELECT offset FROM decisions EXCEPT SELECT 1",
    "SELECT * EXCEPT (answer) FROM asks -- a comment",
    "DESCRIBE TABLE asks",
)  # fmt: skip


@pytest.mark.parametrize("sql", REFUSED, ids=[sql[:50] for sql in REFUSED])
def test_what_does_more_than_read_the_audit_is_refused(database: AuditDatabase, sql: str) -> None:
    with pytest.raises(QuestionRefused):
        run_sql(database, sql)
    assert not Path("/tmp/sluicegate-outfile").exists()


@pytest.mark.parametrize("sql", PASSED, ids=[sql[:50] for sql in PASSED])
def test_what_only_reads_the_audit_is_answered(database: AuditDatabase, sql: str) -> None:
    assert run_sql(database, sql).columns


def test_long_answers_are_cut_with_a_notice(database: AuditDatabase) -> None:
    whole = run_sql(database, "SELECT number FROM numbers(10000)")
    assert (len(whole.rows), whole.more, whole.notice()) == (AUDITOR_ROWS_MAX, False, None)
    cut = run_sql(database, "SELECT number FROM numbers(30000) ORDER BY number DESC")
    assert (len(cut.rows), cut.more, cut.rows[0]) == (AUDITOR_ROWS_MAX, True, (29_999,))
    assert "only the first 10000 rows" in (cut.notice() or "")


def test_an_answer_that_costs_too_much_is_given_up(database: AuditDatabase) -> None:
    """And leaves nothing behind: chdb would put what it had begun to answer in front of the next answer."""
    with pytest.raises(Unavailable, match="gave up"):
        run_sql(database, "SELECT repeat('x', 100000) FROM numbers(10000)")
    assert run_sql(database, "SELECT 7 AS seven") == Result(columns=("seven",), rows=((7,),))


# ---- one story -------------------------------------------------------------------------------------------------------


def shown(database: AuditDatabase, name: str) -> str:
    console = Console(width=140, file=io.StringIO(), record=True)
    console.print(render(story(LocalAuditor(database), name)))
    return console.export_text()


@pytest.mark.parametrize("name", ["6", "demo-06", "d3-0-2"])
def test_the_whole_story_is_on_one_screen(database: AuditDatabase, name: str) -> None:
    text = shown(database, name)
    for wanted in (
        'User::"ian.intern" (intern)', 'Service::"helpdesk-app"', "How much does Priya Shah earn?",
        "smollm2 for purpose people",
        "interns-may-practise", "max_tokens = 24", 'Field::"people.salary" withheld (no policy permits)',
        "max_tokens 200 to 24", "She earns [withheld] a year.", "withheld:people.salary", "CPUExecutionProvider",
        "RELEASED Priya Shah earns [withheld] a year.", "request at 3/heron.requests/0/2",
        "r3-0-2 at 3/heron.releases/0/2",
        "10 bytes withheld:people.salary of", "(every-answer)", "message:0  (interns-may-practise)",
    ):  # fmt: skip
        assert wanted in text, wanted
    assert "41,500" not in text, "what was withheld is not shown as read"
    assert len(text.splitlines()) <= 40


def test_a_denial_and_a_dead_letter_have_a_story_too(database: AuditDatabase) -> None:
    assert "this purpose is not assigned to you" in shown(database, "7")
    assert "POISON at check 1" in shown(database, "d3-0-6")


@pytest.mark.parametrize("name", ["99", "nobody", "", "d9-9-9", "' OR 1 = 1 --", "x" * 2000])
def test_what_is_not_there_is_said_so(database: AuditDatabase, name: str) -> None:
    with pytest.raises(NoSuchRequest):
        story(LocalAuditor(database), name)


# ---- other processes ask the owner -----------------------------------------------------------------------------------


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_other_processes_ask_through_a_private_socket(database: AuditDatabase, folder: Path) -> None:
    auditor = LocalAuditor(database)

    def ask(path: Path) -> None:
        client = AuditClient(path)
        assert client.is_there()
        assert client.sql("SELECT 1 AS one").rows == ((1,),)
        assert client.sql(QUESTIONS[0].sql) == auditor.sql(QUESTIONS[0].sql)
        assert client.show("5") == story(auditor, "5")
        with pytest.raises(QuestionRefused, match="only read"):
            client.sql("DROP TABLE decisions")
        with pytest.raises(NoSuchRequest, match="no request `99`"):
            client.show("99")
        with asking(AuditConfig(path=folder)) as found:
            assert isinstance(found, AuditClient)

    async def serve() -> None:
        async with serving(auditor, folder) as path:
            assert mode(path) == 0o600
            assert mode(folder) == 0o700
            await asyncio.to_thread(ask, path)

    asyncio.run(serve())
    assert not AuditClient(folder / "audit.sock").is_there()
    with pytest.raises(ConfigurationError, match="owns the audit"), asking(AuditConfig(path=folder)):
        pass


def test_an_audit_that_does_not_exist_is_not_made_by_asking(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no audit"), asking(AuditConfig(path=tmp_path / "none")):
        pass
    assert not (tmp_path / "none").exists()
