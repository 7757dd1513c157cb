"""The policy writer over a log in memory: what it must remember where the log is begun anew."""

import asyncio
from pathlib import Path

import pytest
from memory_log import MemoryLog

from sluicegate.enforcer.policy_kinds import Kind
from sluicegate.enforcer.stops import Scope, Stop
from sluicegate.home import Home
from sluicegate.installation import Installation
from sluicegate.policy_writer import PolicyWriter
from sluicegate.schemas.errors import InvalidBundle
from sluicegate.settings import Settings

ANA, ALL = Stop(scope=Scope.PRINCIPAL, name='User::"ana"'), Stop(scope=Scope.ALL)


def writer(folder: Path, log: MemoryLog) -> PolicyWriter:
    """A writer of the one-box installation in `folder` that has read this log."""
    settings = Settings(home=folder)
    made = PolicyWriter(settings, Installation(settings, Home(root=folder), development=True), log)  # type: ignore[arg-type]
    asyncio.run(made.catch_up())
    return made


def test_a_log_that_is_begun_anew_stops_again_what_stood(tmp_path: Path) -> None:
    async def first(made: PolicyWriter) -> list[int]:
        await made.root()
        return [
            await made.change_stops(Kind.STOP, frozenset({ANA})),
            await made.change_stops(Kind.STOP, frozenset({ALL})),
            await made.change_stops(Kind.RESUME, frozenset({ALL})),
        ]

    async def again(made: PolicyWriter) -> None:
        await made.root()
        await made.restore_stops()

    log = MemoryLog()
    assert asyncio.run(first(writer(tmp_path, log))) == [1, 2, 1]
    assert writer(tmp_path, log).stops.standing == {ANA}
    asyncio.run(again(writer(tmp_path, log)))
    assert writer(tmp_path, log).stops.standing == {ANA}, "nothing is stopped twice"
    anew = MemoryLog()
    made = writer(tmp_path, anew)
    asyncio.run(again(made))
    assert made.stops.standing == writer(tmp_path, anew).stops.standing == {ANA}
    assert asyncio.run(made.change_stops(Kind.RESUME, frozenset({ANA}))) == 2, "versions rise across logs"
    asyncio.run(again(writer(tmp_path, last := MemoryLog())))
    assert not writer(tmp_path, last).stops.standing


def test_nothing_is_appended_that_the_stages_would_reject(tmp_path: Path) -> None:
    log = MemoryLog()
    made = writer(tmp_path, log)
    with pytest.raises(InvalidBundle, match="no root is trusted yet"):
        asyncio.run(made.change_stops(Kind.STOP, frozenset({ALL})))
    asyncio.run(made.root())
    with pytest.raises(InvalidBundle, match="does not stand"):
        asyncio.run(made.change_stops(Kind.RESUME, frozenset({ALL})))
    assert [len(records) for records in log.partitions.values()] == [1]
