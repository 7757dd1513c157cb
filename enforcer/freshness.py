"""Signed freshness records go in, up to which event time the policy state is known comes out; the only place for it.

A record says: once the policy log is folded up to `position`, nothing that is still to come is in force before
`nothing_before_ms`. Whoever publishes it has read the log to its end after the record before had its stamp, and a
version starts `schedule.DELAY_MS` after the stamp of its event at the earliest: so it is true for ever, and a copy of
it that comes again says nothing new. A state without a covering record may lack a stop or a version that somebody
holds back, so nothing is decided by it.

Source: The Update Framework specification 1.0, the role `timestamp`; by python-tuf. There is no snapshot to name: what
is ours rides in the field `x-sluicegate`.
"""

from bisect import bisect_right
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Final

from securesystemslib.signer import Signer  # type: ignore[attr-defined]
from tuf.api.metadata import Metadata, Timestamp  # type: ignore[attr-defined]

from sluicegate.enforcer.policy_kinds import Fault
from sluicegate.enforcer.schedule import DELAY_MS
from sluicegate.enforcer.trust import FIELD, TIME_MS_MAX, Domain, TrustedRoot, Untrusted, read_metadata

STALE_AFTER_MS: Final = 60_000
KIND: Final = "FRESHNESS"
PROMISES_KEPT: Final = 1024  # ahead of the policy log; far more than are made within STALE_AFTER_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class Freshness:
    """What one record promises."""

    position: int
    nothing_before_ms: int


def promise(*, position: int, stamp_before_ms: int) -> Freshness:
    """What may be promised of a policy log whose last record stands at `position`, -1 for none.

    `stamp_before_ms`: the broker's stamp of a record that was appended before the end of the policy log was asked for.
    """
    return Freshness(position=position, nothing_before_ms=stamp_before_ms + DELAY_MS)


def sign_freshness(freshness: Freshness, *, domain: Domain, expires_ms: int, signer: Signer) -> bytes:
    """Metadata of the role `timestamp`. `expires_ms`: from when on a log must not take it any more."""
    field = {"kind": KIND, "env": domain.env, "tenant": domain.tenant}
    timestamp = Timestamp(
        version=freshness.nothing_before_ms,
        # Whole seconds are all that TUF has; it may live on for a second and may not end early.
        expires=datetime.fromtimestamp(-(-expires_ms // 1000), UTC),
        unrecognized_fields={FIELD: {**field, "position": freshness.position}},
    )
    metadata = Metadata(timestamp)
    metadata.sign(signer)
    return metadata.to_bytes()


def verify_freshness(metadata: bytes, *, domain: Domain, root: TrustedRoot, stamp_ms: int) -> Freshness | Untrusted:
    """What the record promises. `stamp_ms`: the broker's stamp of it.

    1 form; 2 kind and domain; 3 signed by the root's role `timestamp`, which has one key or more; 4 root and record not
    expired at the stamp.
    """
    # 1
    read = read_metadata(metadata)
    if isinstance(read, Untrusted):
        return read
    signed: object = read.signed
    field = signed.unrecognized_fields.get(FIELD) if isinstance(signed, Timestamp) else None
    position = field.get("position") if isinstance(field, dict) else None
    if not isinstance(signed, Timestamp) or type(position) is not int or position < -1:
        return Untrusted(fault=Fault.MALFORMED, reason="the metadata is no timestamp metadata with a position")
    if signed.version >= TIME_MS_MAX:
        return Untrusted(fault=Fault.MALFORMED, reason="the metadata promises beyond all time")
    # 2
    expected = {"kind": KIND, "env": domain.env, "tenant": domain.tenant, "position": position}
    if signed.unrecognized_fields != {FIELD: expected}:
        return Untrusted(fault=Fault.FOREIGN, reason="the metadata is for another kind, environment or tenant")
    # 3
    role = root.root.roles[Timestamp.type]
    if not role.keyids or not root.root.get_verification_result(Timestamp.type, read.payload, read.metadata.signatures):
        return Untrusted(fault=Fault.UNSIGNED, reason="the metadata lacks the signature of the root's `timestamp`")
    # 4
    if stamp_ms >= root.expires_ms:
        return Untrusted(fault=Fault.EXPIRED, reason="the root has expired; publish the next version")
    if stamp_ms >= int(signed.expires.timestamp()) * 1000:
        return Untrusted(fault=Fault.EXPIRED, reason="the record was held back until it had expired")
    return Freshness(position=position, nothing_before_ms=signed.version)


class FreshnessLog:
    """The promises so far, in whatever order they came."""

    def __init__(self) -> None:
        # Rising in position and in time: one that needs more of the policy log and reaches less far says nothing.
        self._kept: list[Freshness] = []
        self._newest_ms = 0

    @property
    def newest_ms(self) -> int:
        """The furthest time that was promised for any position; 0 before the first."""
        return self._newest_ms

    def add(self, freshness: Freshness) -> None:
        """Takes a verified promise."""
        self._newest_ms = max(self._newest_ms, freshness.nothing_before_ms)
        first = bisect_right(self._kept, freshness.position, key=_position)
        if first and self._kept[first - 1].nothing_before_ms >= freshness.nothing_before_ms:
            return
        if first and self._kept[first - 1].position == freshness.position:
            first -= 1
        last = first
        while last < len(self._kept) and self._kept[last].nothing_before_ms <= freshness.nothing_before_ms:
            last += 1
        self._kept[first:last] = [freshness]
        del self._kept[:-PROMISES_KEPT]

    def covered_until_ms(self, position: int) -> int:
        """Before which event time a policy log folded up to `position` holds all that can be in force; 0 for none.

        `position` never falls between two calls.
        """
        found = bisect_right(self._kept, position, key=_position)
        if not found:
            return 0
        del self._kept[: found - 1]
        return self._kept[0].nothing_before_ms


class Cover(Enum):
    """What may be done at an event time: decide by the policy state, wait for it, or deny for want of it."""

    COVERED = "covered"
    WAITING = "waiting"
    STALE = "stale"


class Coverage:
    """How far what was promised covers what was folded, and since when that stands still.

    `now_ms` is a clock of the caller's that only runs forward, not event time. Coverage rises when a promise comes
    *and* the policy log is folded as far as it says: withheld records and a withheld policy log look alike.
    """

    def __init__(self, *, stale_after_ms: int, now_ms: int) -> None:
        self._stale_after_ms = stale_after_ms
        self._log = FreshnessLog()
        self._until_ms = 0
        self._rose_ms = now_ms

    def hear(self, freshness: Freshness, *, position: int, now_ms: int) -> None:
        """Takes a verified promise. `position`: the last offset of the policy log that is folded."""
        self._log.add(freshness)
        self._rise(position, now_ms)

    def at(self, time_ms: int, *, position: int, now_ms: int) -> Cover:
        """What may be done at event time `time_ms`."""
        self._rise(position, now_ms)
        if now_ms - self._rose_ms > self._stale_after_ms:
            return Cover.STALE
        return Cover.COVERED if time_ms < self._until_ms else Cover.WAITING

    def _rise(self, position: int, now_ms: int) -> None:
        until_ms = self._log.covered_until_ms(position)
        if until_ms > self._until_ms:
            self._until_ms, self._rose_ms = until_ms, now_ms


def _position(each: Freshness) -> int:
    return each.position
