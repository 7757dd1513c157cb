"""One machine on Apache Kafka: what was decided before `down` stands after the next `up`, and the day goes on."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from by_hand import ANSWER_LIMIT_S, PERSON, SERVICE
from fixtures_broker import need_kafka
from fixtures_stack import StackPlace, ask, broker_of, effective, landed, whole, with_tiny_model

from sluicegate.dev_client import Client
from sluicegate.schemas import codec
from sluicegate.schemas.codes import Code, ReleaseOutcome
from sluicegate.schemas.events import ReleaseMade
from sluicegate.schemas.records import Record
from sluicegate.streams.topology import REDACTOR, Topology


@pytest.fixture
def place(tmp_path: Path) -> Iterator[StackPlace]:
    need_kafka()
    found = with_tiny_model(tmp_path)
    try:
        yield found
    finally:
        found.end()


async def answered(place: StackPlace, *request_ids: str) -> list[ReleaseMade]:
    settings, found = place.attached(), []
    async with Client(settings) as client:
        for request_id in request_ids:
            key = await client.submit(ask(request_id), service=SERVICE, person=PERSON)
            found.append(await client.release_of(key, ANSWER_LIMIT_S))
    await landed(place, settings)
    return found


async def policy_log(place: StackPlace) -> list[bytes | None]:
    settings = place.attached()
    topology = Topology(tenant=settings.tenant, partitions=settings.partitions)
    async with broker_of(settings) as broker:
        return [record.value for record in await whole(broker, topology.policy, 0)]


async def released(place: StackPlace) -> dict[str | None, ReleaseMade]:
    """The effective releases of the log by the id of their request; fails where a request has two."""
    settings = place.attached()
    found: list[Record] = []
    async with broker_of(settings) as broker:
        for partition in range(settings.partitions):
            found += await effective(broker, settings, REDACTOR, partition)
    releases = [codec.decode(record.value, ReleaseMade) for record in found]
    by_id = {release.request_id: release for release in releases}
    assert len(by_id) == len(releases)
    return by_id


@pytest.mark.timeout(400)  # three starts of a whole stack
def test_the_log_the_policy_and_the_answers_of_the_first_run_are_there_in_the_second(place: StackPlace) -> None:
    """Invariants 3 and 9 over a restart: the same epoch, nothing published again, nothing decided again."""
    out = place.up("--broker", "kafka")
    assert "epoch" not in out
    first = asyncio.run(answered(place, "first-1", "first-2"))
    assert {(release.outcome, release.code) for release in first} == {(ReleaseOutcome.RELEASED, Code.OK)}
    before = asyncio.run(policy_log(place))
    code, out, _ = place.type("down")
    assert (code, out) == (0, "  stopped\n")

    out = place.up("--broker", "kafka")
    assert "epoch" not in out
    state = place.state()
    assert (state.epoch, state.broker, state.policy.partition(" ")[0]) == (1, "kafka", "v1")
    assert asyncio.run(policy_log(place)) == before
    assert asyncio.run(released(place)) == {release.request_id: release for release in first}
    (again,) = asyncio.run(answered(place, "second-1"))
    assert (again.outcome, again.code) == (ReleaseOutcome.RELEASED, Code.OK)
    assert sorted(map(str, asyncio.run(released(place)))) == ["first-1", "first-2", "second-1"]
    asks = place.sql("SELECT epoch, request_id, answer FROM asks ORDER BY request_id")
    assert [(row["epoch"], row["request_id"], row["answer"]) for row in asks] == [
        (1, "first-1", first[0].text),
        (1, "first-2", first[1].text),
        (1, "second-1", again.text),
    ]
    assert place.sql("SELECT * FROM coverage") == []
    kinds = place.sql("SELECT kind, count() AS n FROM policy WHERE effective GROUP BY kind")
    assert len(kinds) == 4
    assert {row["n"] for row in kinds} == {1}

    # An edit between two runs is a new version of the same log, in force for what is asked after it.
    assert place.type("down")[0] == 0
    access = place.folder / "policies" / "access.cedar"
    access.write_text(access.read_text() + '\n@id("nothing")\nforbid (principal, action, resource);\n')
    place.up("--broker", "kafka")
    assert place.state().policy.partition(" ")[0] == "v2"
    (denied,) = asyncio.run(answered(place, "third-1"))
    assert denied.outcome is ReleaseOutcome.DENIED
    assert asyncio.run(released(place))["first-1"] == first[0]


def test_the_demo_says_that_it_needs_the_embedded_clock(place: StackPlace) -> None:
    place.up("--broker", "kafka")
    code, out, err = place.type("demo", "--cases", str(Path(__file__).resolve().parents[2] / "demo"))
    assert (code, out) == (2, "")
    assert "the demo moves the stack's clock" in err
    assert "only the embedded broker lets it" in err
    assert err.count("\n") == 1
