"""Fetch answers in, slices out: in order, without a silent hole, and no batch can stop the reader."""

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from sluicegate.schemas.records import Record
from sluicegate.streams import feed
from sluicegate.streams.feed import Feed
from sluicegate.streams.fetch import BrokerConfig, Fetched, unpack

CONFIG = BrokerConfig(bootstrap="127.0.0.1:1", client_id="t")


def record(offset: int) -> Record:
    return Record(topic="t", partition=0, offset=offset, timestamp_ms=0, key=None, value=b"v")


class Answers:
    """Fetch answers in turn; remembers what was asked for."""

    def __init__(self, *answers: list[int] | int) -> None:
        self.answers = list(answers)
        self.asked: list[int] = []

    async def fetch(self, topic: str, partition: int, *, offset: int) -> Fetched:
        self.asked.append(offset)
        answer = self.answers.pop(0)
        if isinstance(answer, int):  # a batch without a record, up to there
            return Fetched(records=[], next=answer, high_watermark=answer)
        following = answer[-1] + 1 if answer else offset
        return Fetched(records=[record(each) for each in answer], next=following, high_watermark=following)


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "PAUSE_S", 0)


def fed(*answers: list[int] | int, start: int = 0, records_max: int = 512) -> tuple[Feed, Answers]:
    made = Feed(CONFIG, "t", 0, start=start, records_max=records_max)
    source = Answers(*answers)
    made._fetcher = source  # type: ignore[assignment]
    return made, source


async def offsets(made: Feed) -> tuple[int, list[int]]:
    taken = await made.take()
    return taken.first, [each.offset for each in taken.records]


async def test_slices_carry_on_where_the_last_one_ended() -> None:
    made, source = fed([], [3, 4, 5], [6], start=3, records_max=2)
    assert await offsets(made) == (3, [3, 4])
    assert await offsets(made) == (5, [5])
    assert await offsets(made) == (6, [6])
    assert source.asked == [3, 3, 6]


async def test_a_hole_counts_only_at_the_third_look() -> None:
    made, source = fed([0, 3, 4], [3, 4], [3, 4])
    assert await offsets(made) == (0, [0])
    assert await offsets(made) == (1, [3, 4])
    assert source.asked == [0, 1, 1]


async def test_a_hole_that_was_a_late_record_is_none() -> None:
    made, _ = fed([0, 3], [1, 2, 3])
    assert await offsets(made) == (0, [0])
    assert await offsets(made) == (1, [1, 2, 3])


async def test_a_batch_without_records_is_passed_and_its_offsets_are_a_hole_of_the_next_slice() -> None:
    made, source = fed([0], 4, 4, 4, [4, 5])
    assert await offsets(made) == (0, [0])
    assert await offsets(made) == (1, [4, 5])
    assert source.asked == [0, 1, 1, 1, 4]


def batch(base: int, count: int) -> bytearray:
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 20)
    for each in range(count):
        builder.append(each, timestamp=1_000 + each, key=None, value=b"v%d" % each, headers=[("h", None)])
    data = bytearray(builder.build())
    data[0:8] = base.to_bytes(8, "big")
    return data


def test_records_before_the_offset_asked_for_are_left_out() -> None:
    records, following = unpack(bytes(batch(10, 4)), topic="t", partition=0, offset=12)
    assert [(each.offset, each.value, each.timestamp_ms, each.headers) for each in records] == [
        (12, b"v2", 1_002, (("h", b""),)),
        (13, b"v3", 1_003, (("h", b""),)),
    ]
    assert following == 14


@pytest.mark.parametrize("damage", ["value", "codec"])
def test_a_batch_that_cannot_be_unpacked_is_a_hole_and_what_follows_is_read(damage: str) -> None:
    broken = batch(0, 3)
    if damage == "value":
        broken[-3] ^= 0xFF
    else:
        broken[22] = 4  # attributes: zstd, which the checksum covers too, so unpacking is refused one way or the other
    records, following = unpack(bytes(broken + batch(3, 2)), topic="t", partition=0, offset=0)
    assert [each.offset for each in records] == [3, 4]
    assert following == 5


def test_a_cut_answer_gives_its_whole_batches() -> None:
    whole = bytes(batch(0, 2) + batch(2, 2))
    records, following = unpack(whole[:-5], topic="t", partition=0, offset=0)
    assert ([each.offset for each in records], following) == ([0, 1], 2)
