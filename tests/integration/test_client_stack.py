"""The client at the real stack: proved, decided, generated, redacted, delivered, and believed by its seal alone."""

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fixtures_stack import StackPlace, broker_of, effective, landed, with_tiny_model

from sluicegate.client import BROKER_ACL, Client, NotAnswered, Parameters, ReleaseOutcome
from sluicegate.dev_service import person_token, service_config
from sluicegate.enforcer.stage_keys import stage_keys_content
from sluicegate.keys import write_key
from sluicegate.schemas import codec
from sluicegate.schemas.codes import Code
from sluicegate.schemas.events import ReleaseMade
from sluicegate.schemas.records import Unsent
from sluicegate.streams.topology import REDACTOR, Topology

TESTS = Path(__file__).resolve().parent.parent
CHILD, DEMO = TESTS / "client_child.py", TESTS.parent / "demo"
HELPDESK, TRIAGE = "helpdesk-app", "nightly-triage"
PERSON = "eva.eng"
FAR_MS = 4_000_000_000_000


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackPlace]:
    place = with_tiny_model(tmp_path_factory.mktemp("c"))
    try:
        place.up()
        yield place
    finally:
        place.end()


class Desk:
    """A client of one service, for one person."""

    def __init__(self, place: StackPlace, client: Client, person: str = PERSON) -> None:
        settings = place.attached()
        self.client = client
        self.own = {
            "model": settings.model_name,
            "purpose": "writing",
            "parameters": Parameters(max_tokens=4),
            "person_token": person_token(settings, service=client.config.service, person=person),
        }

    def asked(self, text: str, **changes: object) -> dict[str, object]:
        return {**self.own, "text": text, **changes}


@asynccontextmanager
async def desk(place: StackPlace, service: str = HELPDESK, **changes: object) -> AsyncIterator[Desk]:
    config = replace(await service_config(place.attached(), service, timeout_s=90.0), **changes)  # type: ignore[arg-type]
    async with Client(config) as client:
        yield Desk(place, client)


async def test_the_lines_in_the_readme_get_an_answer(house: StackPlace, capsys: pytest.CaptureFixture[str]) -> None:
    text = (TESTS.parent / "README.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    exec(compile(shown, "README.md", "exec"), names)
    token = person_token(house.attached(), service=HELPDESK, person=PERSON)
    await names["main"](await service_config(house.attached(), HELPDESK, timeout_s=90.0), token)
    assert capsys.readouterr().out.startswith("RELEASED OK ")


async def test_every_kind_of_request_gets_one_terminal_release(house: StackPlace) -> None:
    async with desk(house) as one:
        ask = one.client.ask
        answers = {
            "released": await ask(**one.asked("Say hello.", request_id="kind-1")),
            "json": await _json(house),
            "denied": await ask(**one.asked("x", purpose="invoice", request_id="kind-2")),
            "expired": await ask(**one.asked("x", request_id="kind-3", deadline_ms=1)),
            "unproved": await _unproved(house),
            "duplicate": await ask(**one.asked("x", request_id="kind-4", deadline_ms=FAR_MS)),
            "of": await ask(**one.asked("x", request_id="kind-4", deadline_ms=FAR_MS)),
            "reused": await ask(**one.asked("y", request_id="kind-4", deadline_ms=FAR_MS)),
        }
    found = {name: (answer.outcome, answer.code) for name, answer in answers.items()}
    released = (ReleaseOutcome.RELEASED, Code.OK)
    assert found == {
        "released": released,
        "json": released,
        "denied": (ReleaseOutcome.DENIED, Code.DENIED),
        "expired": (ReleaseOutcome.EXPIRED, Code.EXPIRED),
        "unproved": (ReleaseOutcome.DENIED, Code.PROOF_KEY_UNKNOWN),
        "duplicate": released,
        "of": released,
        "reused": (ReleaseOutcome.REFUSED, Code.REQUEST_ID_REUSED),
    }
    assert answers["released"].text
    assert answers["of"].release == answers["duplicate"].release
    assert answers["of"].duplicate_of == answers["duplicate"].decision_id
    assert answers["unproved"].release.request_id is None


async def _json(place: StackPlace):  # type: ignore[no-untyped-def]
    async with desk(place, wire_format="json") as one:
        return await one.client.ask(**one.asked("Say hello."))


async def _unproved(place: StackPlace):  # type: ignore[no-untyped-def]
    async with desk(place, kid="nobody's") as one:
        return await one.client.ask(**one.asked("x"))


async def test_200_at_once_each_get_their_own(house: StackPlace) -> None:
    async with desk(house) as one:
        answers = await asyncio.gather(
            *(one.client.ask(**one.asked(f"Say {n}.", request_id=f"many-{n}")) for n in range(200))
        )
        assert {answer.code for answer in answers} == {Code.OK}
        assert [answer.release.request_id for answer in answers] == [f"many-{n}" for n in range(200)]
        assert len({answer.decision_id for answer in answers}) == 200
        assert one.client.waiting == 0
        assert one.client.counts.unverified == one.client.counts.foreign == 0


async def test_a_second_service_reads_nothing_of_the_first(house: StackPlace) -> None:
    async with desk(house) as first, desk(house, TRIAGE) as second:
        await first.client.ask(**first.asked("Say hello.", request_id="mine"))
        with pytest.raises(NotAnswered):
            await second.client.find("mine", timeout_s=1.0)
        own = await second.client.ask(model="smollm2", purpose="ticket", text="x", request_id="own")
        assert own.release.actor == f'Service::"{TRIAGE}"'
        assert own.release.principal == f'Service::"{TRIAGE}"'
        assert second.client.counts.foreign == 0


async def test_forged_replies_are_ignored_and_the_genuine_one_arrives(house: StackPlace) -> None:
    """Positive control: the same forgery is believed by a client that trusts the broker's rights instead."""
    settings = house.attached()
    topology = Topology(tenant=settings.tenant, partitions=settings.partitions)
    async with desk(house) as one, desk(house, trust=BROKER_ACL) as credulous, broker_of(settings) as rogue:
        before = await one.client.ask(**one.asked("Say hello.", request_id="before"))
        partition = before.place.partition
        coming = await rogue.end_offset(topology.requests, partition)
        genuine = next(
            record for record in await effective(rogue, settings, REDACTOR, partition)
            if codec.decode(record.value, ReleaseMade).request_id == "before"
        )  # fmt: skip
        loot = replace(before.release, release_id="r9", request_offset=coming, request_id="raced", text="forged")
        forgeries = [
            Unsent(key=genuine.key, value=codec.encode(loot), headers=genuine.headers),
            Unsent(key=genuine.key, value=codec.encode(loot)),
        ]
        await rogue.append(topology.reply(HELPDESK), partition, forgeries)
        assert (await credulous.client.find("raced")).text == "forged"
        answer = await one.client.ask(**one.asked("Say hello.", request_id="raced"))
        assert answer.place.offset == coming
        assert answer.text != "forged"
        assert one.client.counts.unverified == len(forgeries)


async def test_a_killed_service_finds_each_answer_by_its_request_id(house: StackPlace, tmp_path: Path) -> None:
    settings = house.attached()
    config = await service_config(settings, TRIAGE)
    key, trust = tmp_path / "keys" / "service.pem", tmp_path / "redactor-keys.json"
    write_key(key, config.key)  # type: ignore[arg-type]
    trust.write_bytes(stage_keys_content(config.trust.values()))  # type: ignore[union-attr]
    ids = [f"child-{n}" for n in range(10)]
    words = (settings.bootstrap, settings.tenant, TRIAGE, str(settings.epoch), str(key), str(trust), *ids)
    child = await asyncio.create_subprocess_exec(sys.executable, str(CHILD), *words, stdout=asyncio.subprocess.PIPE)
    try:
        assert child.stdout is not None
        async with asyncio.timeout(60):
            lines = [(await child.stdout.readline()).decode() for _ in ids[:6]]
    finally:
        child.kill()
        await child.wait()
    assert [line.split()[0] for line in lines] == ids[:6]
    async with desk(house, TRIAGE) as second:
        found = await asyncio.gather(*(second.client.find(each) for each in ids[:6]))
    assert [answer.release.request_id for answer in found] == ids[:6]
    await landed(house, settings)
    decided = house.sql(
        "SELECT request_id, count() AS n FROM decisions WHERE startsWith(request_id, 'child-') GROUP BY request_id"
    )
    assert all(row["n"] == 1 for row in decided)
    assert len(decided) >= 6


def test_sluicegate_ask_prints_what_the_client_got(house: StackPlace) -> None:
    words = ("--as", "eva", "--about", "none", "--max-tokens", "4", "--cases", str(DEMO))
    code, out, err = house.type("ask", "Say hello.", *words)
    assert code == 0, err
    assert "audit show 101" in out
    code, out, err = house.type("ask", "x", *words, "--via", "no-such-app")
    assert code != 0
    assert "no reply topic" in err
