"""Who can write to every topic of the running stack and has no key of a stage changes nothing: no call, no word."""

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from attacker import FAR, KEY, LOOT, STAGE_OF, Attack, Attacker, forge_policy, generation, grant, release, unsent
from by_hand import ANSWER_LIMIT_S, PERSON, SERVICE
from fixtures_stack import StackPlace, ask, broker_of, effective, landed, verifier_of, whole

from sluicegate.dev_client import Client
from sluicegate.enforcer.partition import partition_of
from sluicegate.enforcer.seal import Effective
from sluicegate.schemas import codec
from sluicegate.schemas.codes import Code, ReleaseOutcome
from sluicegate.schemas.events import (
    DecisionMade,
    GenerationFinished,
    ReleaseMade,
    Source,
)
from sluicegate.schemas.ids import entity_uid
from sluicegate.settings import Settings
from sluicegate.streams.kafka import Broker
from sluicegate.streams.topology import ENFORCER, REDACTOR, RUNNER, Topology

FLOOD = 400


async def settled(broker: Broker, settings: Settings, partition: int) -> None:
    """Every record of the request path has an effective output of the stage behind it."""
    topology = Topology(tenant=settings.tenant, partitions=settings.partitions)
    for stage in (ENFORCER, RUNNER, REDACTOR):
        async with asyncio.timeout(ANSWER_LIMIT_S):
            while True:
                end = await broker.end_offset(topology.source(stage), partition)
                covered = 0
                for record in await effective(broker, settings, stage, partition):
                    event = codec.decode(
                        record.value, {ENFORCER: DecisionMade, RUNNER: GenerationFinished, REDACTOR: ReleaseMade}[stage]
                    )
                    covered += event.source.count
                if covered >= end:
                    break
                await asyncio.sleep(0.1)


async def answered(client: Client, request_id: str, person: str = PERSON) -> ReleaseMade:
    """A genuine request's release: the positive control of every attack."""
    key = await client.submit(ask(request_id, max_tokens=4), service=SERVICE, person=person)
    found = await client.release_of(key, ANSWER_LIMIT_S)
    assert (found.outcome, found.code) == (ReleaseOutcome.RELEASED, Code.OK)
    assert found.text
    assert LOOT not in found.text
    return found


@dataclass(frozen=True, kw_only=True)
class Siege:
    """One run of every attack, with genuine requests before, between and after."""

    settings: Settings
    partition: int
    attack: Attack
    releases: list[ReleaseMade]
    raced: ReleaseMade
    policy: list[tuple[int, str]]


async def lay_siege(place: StackPlace, candidate: Path) -> Siege:
    settings = place.attached()
    async with Client(settings) as client, broker_of(settings) as broker:
        partition = partition_of(KEY, settings.partitions)
        attacker = Attacker(broker, settings, partition)
        releases = [await answered(client, "siege-0")]
        # somebody on the other partition, so that there is a genuine record to carry over
        other = next(
            each for each in ("ian.intern", "una.both", "pia.people", "finn.finance")
            if partition_of(entity_uid("User", each).encode(), settings.partitions) != partition
        )  # fmt: skip
        await client.release_of(await client.submit(ask("siege-1"), service=SERVICE, person=other), ANSWER_LIMIT_S)
        policy = [await version(broker, settings, releases[-1])]

        await attacker.forge("decisions", grant(1))
        releases.append(await answered(client, "siege-2"))
        await settled(broker, settings, partition)

        # under a genuine allow, so that only the seal is missing
        allow = (await attacker.genuine(ENFORCER, partition))[-1]
        decision = codec.decode(allow.value, DecisionMade)
        claim = generation(replace(decision.source, offset=allow.offset), decision.decision_id)
        await attacker.forge("generations", claim)
        releases.append(await answered(client, "siege-3"))
        await settled(broker, settings, partition)

        # the next request's release, forged before it is asked
        coming = await broker.end_offset(client.topology.requests, partition)
        await attacker.forge("releases", release(coming))
        raced = await answered(client, "siege-4")
        assert raced.request_offset == coming

        await attacker.write("decisions", "flood", [unsent(grant(2 + number)) for number in range(FLOOD)])
        await attacker.write("generations", "flood", [unsent(claim)] * FLOOD)
        releases.append(await answered(client, "siege-5"))
        await settled(broker, settings, partition)

        await forge_policy(attacker, place, candidate)
        releases.append(await answered(client, "siege-6"))
        policy.append(await version(broker, settings, releases[-1]))
    await landed(place, settings)
    return Siege(
        settings=settings, partition=partition, attack=attacker.attack, releases=releases, raced=raced, policy=policy
    )


async def version(broker: Broker, settings: Settings, found: ReleaseMade) -> tuple[int, str]:
    """Which bundle decided."""
    partition = partition_of(KEY, settings.partitions)
    for record in await effective(broker, settings, ENFORCER, partition):
        decision = codec.decode(record.value, DecisionMade)
        if decision.decision_id == found.decision_id:
            assert decision.policy is not None
            return decision.policy.bundle_version, decision.policy.bundle_digest
    raise AssertionError(found.decision_id)


@pytest.fixture(scope="module")
def siege(stack: StackPlace) -> Siege:
    # a second version first, so that the log holds an old one to bring back
    access = stack.folder / "policies" / "access.cedar"
    access.write_text(access.read_text() + "\n// the same rules, said again\n")
    code, out, err = stack.type("publish")
    assert code == 0, err
    assert "published bundle v2" in out
    access.write_text(
        access.read_text() + '\n@id("all")\npermit (principal, action == Action::"generate", resource);\n'
    )
    return asyncio.run(lay_siege(stack, stack.folder / "policies"))


def where(siege: Siege, name: str) -> str:
    """The rows of everything forged on a topic."""
    partition = 0 if name == "policy" else siege.partition
    offsets = ", ".join(map(str, siege.attack.planted[name]))
    return f"epoch = {siege.settings.epoch} AND partition = {partition} AND offset IN ({offsets})"


def test_forged_grants_start_no_model_call(siege: Siege, stack: StackPlace) -> None:
    """Invariants 1 and 2: each is refused as forged by the runner, and each genuine allow beside them was run."""
    planted = siege.attack.planted["decisions"]
    assert len(planted) == 8 + FLOOD
    kept = stack.sql(
        f"SELECT count() AS rows, countIf(effective) AS effective FROM decisions WHERE {where(siege, 'decisions')}"
    )
    assert kept == [{"rows": len(planted), "effective": 0}]
    refusals = stack.sql(
        "SELECT source_offset, source_count, code, outcome, ran, text FROM generations "
        f"WHERE effective AND code = 'FORGED' AND partition = {siege.partition}"
    )
    covered = [row["source_offset"] + step for row in refusals for step in range(row["source_count"])]
    # The enforcer's own slices that lost their place to a forgery are void too: it appended them again.
    void = stack.sql(f"SELECT offset, void_reason FROM decisions WHERE NOT effective AND partition = {siege.partition}")
    assert sorted(covered) == sorted(row["offset"] for row in void)
    assert set(planted) <= set(covered)
    since = min(planted)  # other tests of the session planted before
    displaced = {row["void_reason"] for row in void if row["offset"] > since and row["offset"] not in set(planted)}
    assert displaced <= {"sealed for another offset"}
    assert {(row["outcome"], row["ran"], row["text"]) for row in refusals} == {("REFUSED", False, None)}
    assert len(refusals) < FLOOD / 4, "a flood is answered by ranges"
    ran, allowed = (
        stack.sql(f"SELECT count() AS n FROM {table} WHERE effective AND {claim} AND partition = {siege.partition}")[0][
            "n"
        ]
        for table, claim in (("generations", "ran"), ("decisions", "verdict = 'ALLOW'"))
    )
    assert ran == allowed >= len(siege.releases)


def test_forged_generations_release_no_text(siege: Siege, stack: StackPlace) -> None:
    """Invariant 4."""
    planted = siege.attack.planted["generations"]
    assert len(planted) == 8 + FLOOD
    refusals = stack.sql(
        "SELECT source_offset, source_count, text, request_offset FROM releases "
        f"WHERE effective AND code = 'FORGED' AND partition = {siege.partition}"
    )
    covered = {row["source_offset"] + step for row in refusals for step in range(row["source_count"])}
    assert set(planted) <= covered
    assert {(row["text"], row["request_offset"]) for row in refusals} == {(None, None)}
    loot = stack.sql(f"SELECT count() AS n FROM releases WHERE effective AND position(text, '{LOOT}') > 0")
    assert loot == [{"n": 0}]
    kept = stack.sql(f"SELECT count() AS n FROM generations WHERE NOT effective AND position(text, '{LOOT}') > 0")
    assert kept[0]["n"] > FLOOD, "the audit holds what was forged"


def test_forged_releases_reach_nobody(siege: Siege, stack: StackPlace) -> None:
    """Invariant 2: the client waited for the very request that they claim to answer."""
    planted = siege.attack.planted["releases"]
    assert len(planted) == 8
    assert siege.raced.text
    kept = stack.sql(
        f"SELECT count() AS rows, countIf(effective) AS effective FROM releases WHERE {where(siege, 'releases')}"
    )
    assert kept == [{"rows": len(planted), "effective": 0}]
    told = stack.sql(
        f"SELECT answer FROM asks WHERE partition = {siege.partition} AND offset = {siege.raced.request_offset}"
    )
    assert told == [{"answer": siege.raced.text}]


def test_forged_policy_changes_nothing(siege: Siege, stack: StackPlace) -> None:
    """Invariant 8: the version before stays in force, and each forgery is kept with why it does not count."""
    before, after = siege.policy
    assert before == after
    assert before[0] == 2
    planted = siege.attack.planted["policy"]
    assert len(planted) == 6
    kept = stack.sql(
        f"SELECT offset, effective, void_reason FROM policy WHERE {where(siege, 'policy')} ORDER BY offset"
    )
    assert [row["effective"] for row in kept] == [0] * len(planted)
    reasons = dict(zip(siege.attack.names["policy"], (row["void_reason"] for row in kept), strict=True))
    assert "signatures" in reasons["unsigned"]
    assert "signatures" in reasons["unknown key"]
    assert "signatures" in reasons["a stage's key"]
    assert "not the one that was signed" in reasons["signed for other content"]
    assert "not above" in reasons["an old version again"]
    genuine = stack.sql("SELECT count() AS n FROM policy WHERE effective AND kind = 'BUNDLE'")
    assert genuine == [{"n": 2}]


def test_every_forgery_is_void_for_its_own_reason(siege: Siege, stack: StackPlace) -> None:
    """What stands in the audit is the verifier's word, not a blanket refusal."""
    for name in STAGE_OF:
        kept = stack.sql(f"SELECT void_reason FROM {name} WHERE {where(siege, name)} ORDER BY offset")
        reasons = dict(zip(siege.attack.names[name], (row["void_reason"] for row in kept), strict=False))
        assert reasons == reasons | {
            "no seal": "no seal",
            "own key, own name": "key is not the writing stage's",
            "own key, the stage's name": "signature does not verify",
            "another stage's key": "key is not the writing stage's",
            "genuine, at another offset": "sealed for another offset",
            "genuine, of another partition": "sealed for another place",
            "a genuine seal before other bytes": "sealed for another offset",
            "noise": "unreadable seal",
        }


def test_the_audit_has_no_gap_and_no_inference_without_an_allow(siege: Siege, stack: StackPlace) -> None:
    """Invariants 1, 3 and 9, as a person asks for them."""
    (counted,) = stack.typed_sql(
        """SELECT (SELECT count() FROM inferences_without_one_allow WHERE effective) AS without_an_allow,
                  (SELECT count() FROM coverage) AS uncovered,
                  (SELECT count() FROM generations WHERE effective AND ran) AS ran"""
    )
    assert (counted["without_an_allow"], counted["uncovered"]) == (0, 0)
    assert counted["ran"] >= len(siege.releases)


def test_a_claimed_inference_without_an_allow_is_found(siege: Siege, stack: StackPlace) -> None:
    """Invariant 1: the view that is empty above names exactly what is planted now."""
    before = stack.sql("SELECT * FROM inferences_without_one_allow")

    async def plant() -> list[int]:
        async with broker_of(siege.settings) as broker:
            attacker = Attacker(broker, siege.settings, siege.partition)
            source = Source(offset=FAR, count=1, digest=b"", timestamp_ms=0)
            await attacker.write("generations", "no decision", [unsent(generation(source, "d1-0-9"))])
            forged = Source(offset=siege.attack.planted["decisions"][0], count=1, digest=b"", timestamp_ms=0)
            await attacker.write("generations", "forged grant", [unsent(generation(forged, grant(1).decision_id))])
            await attacker.write("generations", "no run", [unsent(generation(source, "d1-0-9", ran=False))])
        await landed(stack, siege.settings)
        return attacker.attack.planted["generations"]

    planted = asyncio.run(plant())
    every = stack.sql("SELECT * FROM inferences_without_one_allow ORDER BY offset")
    found = [row for row in every if row not in before]
    assert [(row["offset"], row["allows"], row["effective"]) for row in found] == [(at, 0, 0) for at in planted[:2]]


async def test_the_seals_of_genuine_records_do_verify(siege: Siege) -> None:
    """The control of everything above: by the same keys, what the stages wrote counts."""
    async with broker_of(siege.settings) as broker:
        topology = Topology(tenant=siege.settings.tenant, partitions=siege.settings.partitions)
        for name, stage in STAGE_OF.items():
            verifier = verifier_of(siege.settings, stage, siege.partition)
            verdicts = [verifier.verify(each) for each in await whole(broker, topology.topic(name), siege.partition)]
            counting = {each.record.offset for each in verdicts if isinstance(each, Effective)}
            assert counting.isdisjoint(siege.attack.planted[name])
            assert len(counting) >= len(siege.releases)
