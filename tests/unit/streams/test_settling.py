"""A broker that just started: what it does not know yet is asked for again, and what it never knew is told."""

from collections.abc import Sequence
from types import SimpleNamespace

import pytest
from aiokafka.errors import NodeNotReadyError

from sluicegate.schemas.errors import ContinuityError, Unavailable
from sluicegate.streams import fetch
from sluicegate.streams.fetch import BrokerConfig, Fetched, Fetcher

CONFIG = BrokerConfig(bootstrap="nowhere:1", client_id="t", request_timeout_s=0.4)


class Starting(Fetcher):
    """Answers from two scripts, the last line of each for ever."""

    def __init__(self, *, counts: Sequence[int] = (0,), marks: Sequence[int | None] = (0,)) -> None:
        super().__init__(CONFIG)
        self._counts, self._marks = list(counts), list(marks)
        self.asked = 0

    async def _connected(self) -> SimpleNamespace:  # type: ignore[override]
        async def fetch_all_metadata() -> SimpleNamespace:
            self.asked += 1
            count = self._counts[0] if len(self._counts) == 1 else self._counts.pop(0)
            return SimpleNamespace(partitions_for_topic=lambda _: set(range(count)) or None)

        return SimpleNamespace(fetch_all_metadata=fetch_all_metadata)

    async def _fetch_once(self, topic: str, partition: int, offset: int, wait_ms: int, size: int) -> Fetched:
        mark = self._marks[0] if len(self._marks) == 1 else self._marks.pop(0)
        if mark is None:
            raise Unavailable("the broker is away") from NodeNotReadyError()
        return Fetched(records=[], next=offset, high_watermark=mark)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "SETTLING_S", 0.05)
    monkeypatch.setattr(fetch, "RETRY_PAUSE_S", 0.01)
    monkeypatch.setattr(fetch, "RETRY_PAUSE_MAX_S", 0.01)


async def test_a_topic_that_is_not_known_yet_is_no_missing_topic() -> None:
    assert await Starting(counts=(0, 0, 3)).partitions("t") == 3


async def test_a_topic_that_is_missing_is_looked_for_once_and_told_at_once_after_that() -> None:
    fetcher = Starting(counts=(0,))
    assert await fetcher.partitions("t") == 0
    looked = fetcher.asked
    assert looked > 2
    assert await fetcher.partitions("t") == 0
    assert fetcher.asked == looked + 1


async def test_a_high_watermark_that_is_behind_for_a_moment_is_no_cut_log() -> None:
    found = await Starting(marks=(5, None, 7, 9)).fetch("t", 0, offset=9)
    assert found.high_watermark == 9
    with pytest.raises(ContinuityError, match="ends at 5, before offset 9"):
        await Starting(marks=(5,)).fetch("t", 0, offset=9)
