"""What a producing service says of itself and of the gate it asks; checked here before anything is connected."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Final, Literal

from sluicegate.client.signing import ProofKey
from sluicegate.enforcer.credentials import is_name
from sluicegate.enforcer.seal import StageKey
from sluicegate.schemas.errors import ConfigurationError
from sluicegate.schemas.ids import REPLY_NAME, KeyId
from sluicegate.streams.fetch import Security
from sluicegate.streams.topology import Topology

PARTITIONS_UNKNOWN: Final = 1
WAITING_MAX: Final = 100_000


class Trust(Enum):
    """What stands in the place of the redactor's keys."""

    BROKER_ACL = "broker-acl"


BROKER_ACL: Final = Trust.BROKER_ACL
"""Believe every record of the reply topic: that nobody but the delivery stage can write there is the broker's word."""


def wall_clock_ms() -> int:
    """Milliseconds since 1970 on this machine."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """One producing service at one gate. Times in seconds unless they say otherwise.

    `service`: its id in the directory; `key`: what it signs proofs with (a PEM file of mode 0600, or whoever signs for
    it), `kid` the key's name in the directory (None: the one `sluicegate keys` gives it). `reply`: the reply topic that
    the directory names for the service (None: the service's id).

    `trust`: the redactor's public keys (a file, read again when it changes, or the keys themselves), so that no answer
    is believed that the redactor did not seal; or `BROKER_ACL`. `partitions`: None takes what the broker says.

    `waiting_max`: requests of this client that may wait for their releases at once; `when_full`: whether a call over
    that waits for its turn, or raises `TooManyWaiting` at once. `timeout_s`: how long a call waits unless it says
    otherwise; `deadline_share` of it is the deadline that the request carries, after which no model call starts.
    `schema_ids`: where the gate uses a schema registry, the id of each released schema there and its name.
    """

    bootstrap: str
    service: str
    key: Path | ProofKey = field(repr=False)
    trust: Path | Mapping[KeyId, StageKey] | Trust
    kid: str | None = None
    reply: str | None = None
    env: str = "local"
    tenant: str = "main"
    epoch: int = 1
    partitions: int | None = None
    security: Security = field(default_factory=Security)
    wire_format: Literal["avro", "json"] = "avro"
    waiting_max: int = 1000
    when_full: Literal["wait", "refuse"] = "wait"
    timeout_s: float = 60.0
    deadline_share: float = 0.8
    request_timeout_s: float = 10.0
    fetch_wait_ms: int = 100
    schema_ids: Mapping[int, str] = field(default_factory=dict)
    now_ms: Callable[[], int] = wall_clock_ms

    def __post_init__(self) -> None:
        """Refuses what could only fail later.

        Raises:
            ConfigurationError: a value is out of its range.
        """
        problems = [
            (not self.bootstrap, "`bootstrap` must name a broker, as `kafka-1:9092`"),
            (not is_name(self.service), "`service` must be the id of a service in the directory"),
            (not REPLY_NAME.fullmatch(self.reply_name), f"`{self.reply_name}` cannot name a reply topic; give `reply`"),
            (not 1 <= self.waiting_max <= WAITING_MAX, f"`waiting_max` must be from 1 to {WAITING_MAX}"),
            (self.timeout_s <= 0, "`timeout_s` must be more than 0"),
            (not 0 < self.deadline_share <= 1, "`deadline_share` must be over 0 and at most 1"),
            (self.partitions is not None and self.partitions < 1, "`partitions` must be at least 1"),
            (self.epoch < 1, "`epoch` must be at least 1"),
            (self.wire_format not in ("avro", "json"), "`wire_format` must be `avro` or `json`"),
            (self.when_full not in ("wait", "refuse"), "`when_full` must be `wait` or `refuse`"),
        ]
        for wrong, text in problems:
            if wrong:
                raise ConfigurationError(text)

    @property
    def reply_name(self) -> str:
        """What the reply topic is called after `<tenant>.replies.`."""
        return self.reply if self.reply is not None else self.service

    def topology(self, partitions: int = PARTITIONS_UNKNOWN) -> Topology:
        """The names of the gate's topics."""
        return Topology(tenant=self.tenant, partitions=partitions)
