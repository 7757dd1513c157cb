"""The commands of docs/directory.md do what it says, typed as they stand there, and its queries answer."""

import asyncio
import json
import re
import shlex
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from deployment import POLICIES, Deployment, embedded_deployment

from sluicegate.enforcer.state import PolicyLog
from sluicegate.home import Home
from sluicegate.installation import Installation
from sluicegate.landing import judge_policy
from sluicegate.sinks.auditor import LocalAuditor
from sluicegate.sinks.clickhouse import AuditConfig, open_audit
from sluicegate.sinks.rows import Landing, Table
from sluicegate.sinks.sink import Sink
from sluicegate.streams.kafka import Broker, BrokerConfig
from sluicegate.streams.topology import Topology

GUIDE = POLICIES.parent / "docs" / "directory.md"
SHOWN_TIME = "2026-11-24T09:30:00Z"
FILES = {
    "people.csv": "id,roles,purposes\nnew.person,people,people\n",
    "fields.csv": "id,class\ntickets.rating,open\n",
    "users.json": json.dumps(
        {"totalResults": 1, "Resources": [{"id": "1", "userName": "ana.support", "groups": [{"display": "Helpdesk"}]}]}
    ),
}


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture
def deployment(tansu: str, tmp_path: Path) -> Deployment:
    return embedded_deployment(tmp_path, tansu)


def land(deployment: Deployment) -> None:
    """What the sink makes of the policy log as it stands."""
    settings = deployment.publisher.loaded()
    installation = Installation(settings, Home(root=settings.home))
    topic = Topology(tenant=settings.tenant, partitions=1).policy

    async def standing() -> list[Landing]:
        judge = judge_policy(PolicyLog(domain=installation.domain, root_digest=installation.root_digest()))
        async with Broker(BrokerConfig(bootstrap=settings.bootstrap, client_id="test", fetch_wait_ms=20)) as broker:
            records = [record async for batch in broker.read(topic, 0, start=0) for record in batch]
        return [Landing(record=each, effective=judge(each)[0]) for each in records]

    home = Home(root=settings.home)
    with open_audit(AuditConfig(path=home.audit)) as database:
        Sink(database, {topic: Table.POLICY}).land(settings.epoch, topic, 0, asyncio.run(standing()))


def test_what_the_guide_says_is_what_happens(
    deployment: Deployment, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    host = deployment.publisher
    monkeypatch.chdir(host.folder)
    for name, text in FILES.items():
        (host.folder / name).write_text(text)
    assert host.type("publish") == 0
    importing, showing = ([shlex.split(line) for line in block.splitlines()] for block in blocks("sh"))
    said = []
    for words in importing:
        assert host.type(*words[1:]) == 0, words
        printed = capsys.readouterr()
        said.append(printed.out + printed.err)
    assert "+ User::" in said[0]
    assert "published directory v2" in said[1]
    assert '"id":"tickets.rating"' in said[2]
    assert "- User::" in said[3], "everybody that the list lacks would be removed"
    time.sleep(1.0)  # in force half a second after it was stamped, as the broker's lead allows
    now = datetime.now(UTC)
    land(deployment)
    for words in showing:
        assert host.type(*[now.isoformat() if each == SHOWN_TIME else each for each in words[1:]]) == 0, words
        printed = capsys.readouterr()
        assert "directory v2 sha256:" in printed.err
        assert '"id":"new.person"' in printed.out
    queries = blocks("sql")
    assert len(queries) == 4
    with open_audit(AuditConfig(path=Home(root=host.loaded().home).audit)) as database:
        auditor = LocalAuditor(database)
        answers = [auditor.sql(at(query, now)).rows for query in queries]
    person = 'User::"new.person"'
    assert [row[:2] for row in answers[0] if row[0] == person] == [(person, ["people"])]
    assert person in [row[0] for row in answers[1]]
    assert [(row[1], row[3], row[5]) for row in answers[2] if row[2] == person] == [(2, "added", ["people"])]
    changed = {str(row[0]): row[1:] for row in answers[3]}
    assert changed[person][0] == ""
    assert json.loads(str(changed[person][1]))["uid"]["id"] == "new.person"


def at(query: str, now: datetime) -> str:
    """The query with its times around this test: the first two of a day become one before and one after."""
    stamp = now.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    query = query.replace("2026-11-24 09:30:00", stamp)
    return query.replace("2026-11-24 00:00:00", "2001-01-01 00:00:00").replace("2026-11-25 00:00:00", stamp)
