"""A process that fills one partition of an audit until it is killed; says `begin` and `end` around every insert."""

import random
import sys
from pathlib import Path

from sluicegate.schemas.records import Record
from sluicegate.sinks.clickhouse import AuditConfig, open_audit
from sluicegate.sinks.rows import Landing, Table
from sluicegate.sinks.sink import Sink

TOPIC = "heron.requests"
EPOCH = 1


def batch(at: int, count: int) -> list[Landing]:
    """`count` records from offset `at`; each says in its key which batch it belongs to, and how large that is."""
    return [
        Landing(
            record=Record(
                topic=TOPIC,
                partition=0,
                offset=at + index,
                timestamp_ms=1_760_000_000_000 + at + index,
                key=f"{at}/{count}".encode(),
                value=b"\x00" + (at + index).to_bytes(8, "big") * 200,
            ),
            effective=True,
        )
        for index in range(count)
    ]


def main(path: str, seed: int) -> None:
    """Goes on from the frontier, for ever."""
    chance = random.Random(seed)
    with open_audit(AuditConfig(path=Path(path))) as database:
        sink = Sink(database, {TOPIC: Table.REQUESTS})
        frontier = sink.frontier(EPOCH, TOPIC, 0)
        sink.check_continuity(EPOCH, TOPIC, 0, log_start=0, log_end=1 << 40, log_record=_log(frontier - 1))
        print("ready", frontier, flush=True)
        while True:
            landings = batch(frontier, chance.randint(1, 400))
            print("begin", frontier, flush=True)
            frontier = sink.land(EPOCH, TOPIC, 0, landings)
            print("end", frontier, flush=True)


def _log(offset: int) -> Record | None:
    """What the log holds at an offset: the key is not compared, so any batch gives it."""
    return batch(offset, 1)[0].record if offset >= 0 else None


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
