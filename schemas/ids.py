"""Names of things: newtypes for ids and the event key from which every id derives."""

import re
from dataclasses import dataclass
from typing import Final, NewType

Epoch = NewType("Epoch", int)
Offset = NewType("Offset", int)
Partition = NewType("Partition", int)
TimeMs = NewType("TimeMs", int)
"""Event time, milliseconds since 1970-01-01T00:00:00Z."""
KeyId = NewType("KeyId", str)
PolicyId = NewType("PolicyId", str)
EntityUid = NewType("EntityUid", str)
"""A Cedar entity uid as policies print it: `User::"ana.support"`."""
Digest = NewType("Digest", str)
"""`sha256:` and 64 hexadecimal digits."""
REPLY_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
"""What the directory may call an application's reply topic: the end of the topic's full name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventKey:
    """Where an event stands for ever: (epoch, topic, partition, offset). No clock, random value or worker is in it."""

    epoch: int
    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.epoch}/{self.topic}/{self.partition}/{self.offset}"


def decision_id(*, epoch: int, partition: int, offset: int) -> str:
    """The id of the decision for the request at `offset`; a decision made twice has the same id."""
    return f"d{epoch}-{partition}-{offset}"


def generation_id(*, epoch: int, partition: int, offset: int) -> str:
    """The id of the generation for the decision record at `offset`."""
    return f"g{epoch}-{partition}-{offset}"


def release_id(*, epoch: int, partition: int, offset: int) -> str:
    """The id of the release for the generation record at `offset`."""
    return f"r{epoch}-{partition}-{offset}"


def entity_uid(entity_type: str, entity_id: str) -> EntityUid:
    """`entity_uid("User", "ana")` -> `User::"ana"`, with Cedar's escapes for quotes and backslashes."""
    escaped = entity_id.replace("\\", "\\\\").replace('"', '\\"')
    return EntityUid(f'{entity_type}::"{escaped}"')
