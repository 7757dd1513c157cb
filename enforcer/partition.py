"""A record key goes in, its partition under Kafka's default partitioner comes out; the only place that hashes keys.

Source: `org.apache.kafka.common.utils.Utils.murmur2` and `toPositive` (MurmurHash2 of A. Appleby, 32 bits).
"""

_SEED = 0x9747B28C
_MULTIPLIER = 0x5BD1E995
_MASK = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """MurmurHash2 of `data`, unsigned 32 bits, with Kafka's seed."""
    whole = len(data) & ~3
    mixed = _SEED ^ len(data)
    for start in range(0, whole, 4):
        word = int.from_bytes(data[start : start + 4], "little") * _MULTIPLIER & _MASK
        word = (word ^ word >> 24) * _MULTIPLIER & _MASK
        mixed = (mixed * _MULTIPLIER & _MASK) ^ word
    if whole < len(data):
        mixed = (mixed ^ int.from_bytes(data[whole:], "little")) * _MULTIPLIER & _MASK
    mixed = (mixed ^ mixed >> 13) * _MULTIPLIER & _MASK
    return mixed ^ mixed >> 15


def partition_of(key: bytes, partition_count: int) -> int:
    """The partition of `partition_count` on which a record with this key belongs.

    Raises:
        ValueError: there is no partition.
    """
    if partition_count < 1:
        raise ValueError(f"a topic has at least 1 partition, not {partition_count}")
    return (murmur2(key) & 0x7FFFFFFF) % partition_count
