"""Sealed releases of several applications, and what of them stands in which topic, for tests of delivery."""

from collections.abc import Mapping, Sequence

from memory_log import MemoryLog
from stages import TOPICS, place, sealed, verifier

from sluicegate.enforcer.seal import as_landed
from sluicegate.schemas import codec
from sluicegate.schemas.codes import Code, ReleaseOutcome
from sluicegate.schemas.events import ReleaseMade, Source
from sluicegate.schemas.ids import entity_uid
from sluicegate.schemas.records import Record, Unsent
from sluicegate.streams.deliver import DeliveryLane, Routes
from sluicegate.streams.topology import Topology

TOPOLOGY = Topology(tenant="t", partitions=1)
RELEASES = TOPICS["redactor"]
REPLIES = {"desk": "desk", "batch": "batch"}
SETTLING_S = 0.2
DESK, BATCH, REFUSALS = TOPOLOGY.reply("desk"), TOPOLOGY.reply("batch"), TOPOLOGY.refusals


def release(offset: int, actor: str | None = "desk", *, text: str | None = None) -> ReleaseMade:
    """The release at `offset`, for a service's request or for one that nobody was proved to have sent."""
    return ReleaseMade(
        release_id=f"r1-0-{offset}",
        source=Source(offset=offset, count=1, digest=b"\x00" * 32, timestamp_ms=1),
        outcome=ReleaseOutcome.RELEASED if actor else ReleaseOutcome.DENIED,
        code=Code.OK if actor else Code.PROOF_MISSING,
        retryable=False,
        request_offset=offset,
        request_id=f"q{offset}" if actor else None,
        actor=entity_uid("Service", actor) if actor else None,
        text=text or (f"answer {offset}" if actor else None),
    )


def slice_of(made: Sequence[ReleaseMade], *, at: int, time_ms: int = 1_000) -> tuple[Unsent, ...]:
    """The releases as the redactor seals them for offset `at`."""
    unsent = [Unsent(key=b"k" if each.actor else None, value=codec.encode(each)) for each in made]
    first, last = made[0].source.offset, made[-1].source.offset
    return sealed("redactor", unsent, at=at, source_first=first, source_last=last, time_ms=time_ms)


def put_releases(log: MemoryLog, actors: Sequence[str | None], *, slice_size: int = 8) -> list[Record]:
    """Appends one release an actor, in slices; returns all that the log of releases holds."""
    for first in range(0, len(actors), slice_size):
        at = len(log.partitions.get((RELEASES, 0), []))
        made = [release(at + n, actor) for n, actor in enumerate(actors[first : first + slice_size])]
        log.put(RELEASES, 0, slice_of(made, at=at))
    return log.partitions[RELEASES, 0]


def copied(record: Record) -> Unsent:
    """A record as anybody who reads the topic can write it elsewhere, seal and all."""
    return Unsent(key=record.key, value=record.value or b"", headers=record.headers)


def forged_copies(count: int, *, at: int) -> list[Unsent]:
    """Copies whose seals claim high positions: sealed for another place, then moved."""
    batch = slice_of([release(at + n) for n in range(count)], at=at)
    return [Unsent(key=each.key, value=each.value + b"\x00", headers=each.headers) for each in batch]


def lane(log: MemoryLog, *, replies: Mapping[str, str] | None = None, held: bool = True) -> DeliveryLane:
    async def current() -> None:
        """The keys of these tests never change."""

    log.known |= {DESK, BATCH, REFUSALS}

    return DeliveryLane(
        broker=log,
        verifier=verifier("redactor"),
        routes=Routes(TOPOLOGY, lambda: REPLIES if replies is None else replies),
        bytes_max=20_000,
        may_append=lambda: held,
        policy_current=current,
        settling_s=SETTLING_S,
    )


def delivered(log: MemoryLog, topic: str) -> list[int]:
    """The release offsets whose copies stand in a topic, in order, repeats included."""
    return [codec.decode(record.value, ReleaseMade).source.offset for record in log.partitions.get((topic, 0), [])]


def landed(made: Sequence[ReleaseMade], *, at: int) -> tuple[Record, ...]:
    """The records of a slice where they were sealed for."""
    return as_landed(slice_of(made, at=at), place=place("redactor"), base=at)
