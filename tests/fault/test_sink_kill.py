"""The audit has no gap, no duplicate and no torn batch, whatever is killed when (invariant 9)."""

import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sluicegate.sinks.clickhouse import AuditConfig, AuditDatabase, open_audit
from sluicegate.sinks.rows import Table
from sluicegate.sinks.sink import Sink

WRITER = Path(__file__).with_name("sink_writer.py")
KILLS = 12
EPOCH, TOPIC = 1, "heron.requests"


def run_until_killed(path: Path, seed: int, wait_s: float) -> list[str]:
    """Starts a writer, lets it write for `wait_s` once it is ready, kills it, and returns what it said."""
    process = subprocess.Popen([sys.executable, str(WRITER), str(path), str(seed)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = [process.stdout.readline().strip()]
    assert said[0].startswith("ready"), f"the writer did not come up: {said[0]!r}"
    killer = threading.Timer(wait_s, os.kill, (process.pid, signal.SIGKILL))
    killer.start()
    said += [line.strip() for line in process.stdout]
    process.stdout.close()
    process.wait(timeout=30)
    killer.join()
    assert process.returncode == -signal.SIGKILL
    return said


def torn(database: AuditDatabase) -> list[tuple[object, ...]]:
    """Batches of which not every record is there."""
    found = database.writer.query(
        """SELECT key, count(), any(toInt64(splitByChar('/', assumeNotNull(key))[2])) AS wanted FROM requests
           GROUP BY key HAVING count() != wanted"""
    )
    return [tuple(row) for row in found.result_rows]


@pytest.mark.timeout(240)
def test_a_sink_killed_anywhere_loses_repeats_and_tears_nothing(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    chance = random.Random(20261123)
    in_flight = acknowledged = 0
    for kill in range(KILLS):
        said = run_until_killed(path, seed=kill, wait_s=chance.uniform(0.0, 0.5))
        started = int(said[0].split()[1])
        assert started >= acknowledged, "what was acknowledged is durable"
        in_flight += said[-1].startswith("begin")
        acknowledged = max([started, *(int(line.split()[1]) for line in said if line.startswith("end"))])
    assert in_flight >= KILLS // 4, "too few kills hit an insert for this to say anything"
    with open_audit(AuditConfig(path=path)) as database:
        sink = Sink(database, {TOPIC: Table.REQUESTS})
        assert sink.frontier(EPOCH, TOPIC, 0) >= acknowledged > 1000
        assert sink.faults(EPOCH, TOPIC, 0) == ()
        assert torn(database) == []
        assert list((path / "tmp").iterdir()) == [], "raw rows of a killed insert lie about"
        # The same checks find what is planted: a row twice, a row left out.
        frontier = sink.frontier(EPOCH, TOPIC, 0)
        columns = "epoch, topic, partition, offset, timestamp, key, value, effective"
        database.writer.command(
            f"INSERT INTO requests ({columns}) SELECT {columns} FROM requests WHERE offset = 7 LIMIT 1"
        )
        database.writer.command(
            f"INSERT INTO requests ({columns}) SELECT epoch, topic, partition, {frontier + 1}, timestamp, '9/2', "
            "value, effective FROM requests WHERE offset = 8 LIMIT 1"
        )
        assert [(each.problem, each.first, each.last) for each in sink.faults(EPOCH, TOPIC, 0)] == [
            ("repeated", 7, 7),
            ("lost", frontier, frontier),
        ]
        assert len(torn(database)) == 2
