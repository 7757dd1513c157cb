"""A whole stack beside a schema registry: it starts only with one, reads three forms and releases in one framing."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from by_hand import ANSWER_LIMIT_S, SERVICE, Producer, Sent, Street
from fixtures_stack import StackPlace, broker_of, effective, landed, whole, with_tiny_model
from registry_server import RegistryServer

from sluicegate.dev_client import Client
from sluicegate.registry import latest_id, schema_text
from sluicegate.schemas import codec
from sluicegate.schemas.codes import Code
from sluicegate.schemas.errors import ConfigurationError, Unavailable
from sluicegate.schemas.events import ReleaseMade, RequestSubmitted
from sluicegate.settings import Settings
from sluicegate.streams.topology import REDACTOR, Topology
from sluicegate.wiring import run_stage

READING = ("enforcer", "redactor", "delivery", "sink")
JSON = (("content-type", b"application/json"),)


@pytest.mark.parametrize("stage", READING)
async def test_no_stage_starts_without_the_registry_it_was_given(stage: str, tmp_path: Path) -> None:
    """Before anything else: there is no broker here either."""
    async with RegistryServer().running() as server:
        settings = Settings(home=tmp_path, bootstrap="127.0.0.1:1", registry_url=server.url, request_timeout_s=5)
        with pytest.raises(ConfigurationError, match="run `sluicegate schemas register`"):
            await run_stage(stage, settings)
    with pytest.raises(Unavailable, match=r"the schema registry at `127\.0\.0\.1` does not answer"):
        await run_stage(stage, settings)


@asynccontextmanager
async def running(folder: Path, server: RegistryServer) -> AsyncIterator[StackPlace]:
    place = with_tiny_model(folder, SLUICEGATE_REGISTRY_URL=server.url)
    try:
        await asyncio.to_thread(place.up)
        yield place
    finally:
        await asyncio.to_thread(place.end)


def register(server: RegistryServer) -> dict[int, str]:
    server.put("somebody-elses-value", "{}")
    names = {kind: codec.LATEST[kind] for kind in (RequestSubmitted, ReleaseMade)}
    return {
        server.put(f"main.{topic}-value", schema_text(names[kind])): names[kind]
        for topic, kind in (("requests", RequestSubmitted), ("releases", ReleaseMade))
    }


async def ask_in_every_form(settings: Settings, ids: dict[int, str]) -> dict[str, Sent]:
    async with Client(settings) as client, broker_of(settings) as broker:
        now_s = client._clock.now_ms() // 1000
        producer, street = Producer(settings, now_s), Street(client, broker, now_s)
        framed = latest_id(ids, RequestSubmitted)
        in_json = producer.prove(msgspec.json.encode(producer.ask()))
        poison = producer.prove(msgspec.json.encode(producer.ask()).replace(b'"model"', b'"modell"'))
        records = {
            "avro": producer.prove(producer.ask()),
            "confluent": producer.prove(codec.encode(producer.ask(), schema_id=framed)),
            "json": replace(in_json, headers=(*in_json.headers, *JSON)),
            "no header": producer.prove(msgspec.json.encode(producer.ask())),
            "no such member": replace(poison, headers=(*poison.headers, *JSON)),
            "no such id": producer.prove(codec.encode(producer.ask(), schema_id=999)),
        }
        put = {name: await street.put(record) for name, record in records.items()}
        async with asyncio.timeout(ANSWER_LIMIT_S):
            return {name: await street.released(each) for name, each in put.items()}


async def delivered(settings: Settings, count: int) -> list[bytes]:
    """The values of `count` copies or more, from the reply topic of the application and from the refusals."""
    topology = Topology(tenant=settings.tenant, partitions=settings.partitions)
    places = [(topic, n) for topic in (topology.reply(SERVICE), topology.refusals) for n in range(topology.partitions)]
    async with broker_of(settings) as broker, asyncio.timeout(ANSWER_LIMIT_S):
        while True:
            found = [record.value or b"" for place in places for record in await whole(broker, *place)]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.2)


async def test_a_stack_beside_a_registry(tmp_path: Path) -> None:
    async with RegistryServer().running() as server:
        ids = register(server)
        async with running(tmp_path, server) as place:
            settings = place.attached()
            sent = await ask_in_every_form(settings, ids)
            codes = {name: each.release.code for name, each in sent.items()}
            assert codes == {
                "avro": Code.OK,
                "confluent": Code.OK,
                "json": Code.OK,
                "no header": Code.POISON,
                "no such member": Code.POISON,
                "no such id": Code.POISON,
            }
            front = b"\0" + (latest_id(ids, ReleaseMade) or 0).to_bytes(4, "big")
            async with broker_of(settings) as broker:
                released = [
                    record.value or b""
                    for partition in range(settings.partitions)
                    for record in await effective(broker, settings, REDACTOR, partition)
                ]
            assert len(released) == len(sent)
            assert all(value.startswith(front) for value in released)
            assert sorted(await delivered(settings, len(sent))) == sorted(released)
            await landed(place, settings)
            rows = place.sql("SELECT request_id, schema, undecodable FROM requests ORDER BY request_id")
            assert [row["schema"] for row in rows if row["undecodable"] is None].count("RequestSubmitted.v1") == 2
            assert sum(row["undecodable"] is not None for row in rows) == 3
            assert place.sql("SELECT count() AS unread FROM releases WHERE undecodable IS NOT NULL") == [{"unread": 0}]
    # The registry is gone: the audit needs none.
    for name in ("confluent", "json"):
        request_id = sent[name].release.request_id
        assert request_id is not None
        code, out, err = await asyncio.to_thread(place.type, "audit", "show", request_id)
        assert (code, request_id in out) == (0, True), err
    code, out, err = await asyncio.to_thread(place.type, "replay", "--bundle", "policies", "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report["requests"] == 3
    assert report["not_replayable"] == {}
