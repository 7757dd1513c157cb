"""Keys land where Kafka's default partitioner puts them."""

import pytest
from aiokafka.partitioner import murmur2 as aiokafka_murmur2
from hypothesis import given
from hypothesis import strategies as st

from sluicegate.enforcer.partition import murmur2, partition_of


# Vectors of Apache Kafka's own test, `UtilsTest.testMurmur2`, as signed 32-bit integers.
@pytest.mark.parametrize(
    ("data", "signed"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_kafkas_own_vectors(data: bytes, signed: int) -> None:
    assert murmur2(data) == signed % 2**32


@given(st.binary(max_size=64), st.integers(1, 500))
def test_every_key_lands_where_aiokafka_sends_it(key: bytes, count: int) -> None:
    assert murmur2(key) == aiokafka_murmur2(key)
    assert partition_of(key, count) == (aiokafka_murmur2(key) & 0x7FFFFFFF) % count


def test_no_partition_is_a_bug() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        partition_of(b"x", 0)
