"""Decisions are folded in, "was this proof spent, was this request decided" comes out; the only place that knows.

Both sets are functions of the folded decisions alone, so reading a stage's own decisions back restores them, however
the slices were cut: an entry counts by its place in the order of folding and its T, never by when memory was swept.
"""

from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

from sluicegate.enforcer.judgement import Refused
from sluicegate.schemas.codes import Code
from sluicegate.schemas.events import DecisionMade
from sluicegate.schemas.meanings import MEANINGS

# A proof is good from iat-30 s to iat+300 s (check 6): one spent at T can come again until T+330 s.
PROOF_EARLY_MS = 30_000
PROOF_LATE_MS = 300_000
PROOF_WINDOW_MS = PROOF_EARLY_MS + PROOF_LATE_MS
PROOFS_MAX = 1_000_000
REQUEST_WINDOW_MS = 24 * 3600 * 1000
REQUESTS_MAX = 1_000_000

V_ = TypeVar("V_")
Name = tuple[str, str]


@dataclass(frozen=True, slots=True)
class _Entry(Generic[V_]):
    place: int
    time_ms: int
    value: V_


class _Recent(Generic[V_]):
    """The newest `count_max` entries at most `window_ms` of T old. A fork reads its base, which must rest meanwhile."""

    def __init__(self, *, window_ms: int, count_max: int, base: "_Recent[V_] | None" = None) -> None:
        self._window_ms = window_ms
        self._count_max = count_max
        self._base = base
        self._entries: dict[Name, _Entry[V_]] = {}
        self._order: deque[tuple[Name, _Entry[V_]]] = deque()
        self._next: int = base._next if base else 0
        self._time_ms: int = base._time_ms if base else 0
        self._lost_ms: int | None = base._lost_ms if base else None

    def fork(self) -> "_Recent[V_]":
        if self._base is not None:
            raise ValueError("a fork is not forked again")
        return _Recent(window_ms=self._window_ms, count_max=self._count_max, base=self)

    def get(self, name: Name) -> V_ | None:
        entry = self._entries.get(name)
        if entry is None and self._base is not None:
            entry = self._base._entries.get(name)
        return entry.value if entry is not None and self._counts(entry) else None

    def _counts(self, entry: _Entry[V_]) -> bool:
        return entry.place >= self._next - self._count_max and entry.time_ms >= self._time_ms - self._window_ms

    def advance(self, time_ms: int) -> None:
        self._time_ms = max(self._time_ms, time_ms)
        self._sweep()

    def lose(self, time_ms: int) -> None:
        self._lost_ms = time_ms

    def put(self, name: Name, value: V_) -> None:
        entry = _Entry(self._next, self._time_ms, value)
        self._next += 1
        self._entries[name] = entry
        self._order.append((name, entry))
        self._sweep()

    def _sweep(self) -> None:
        if self._base is not None:
            return  # lives for one slice
        while self._order and not self._counts(self._order[0][1]):
            name, entry = self._order.popleft()
            self._lost_ms = entry.time_ms
            if self._entries[name] is entry:
                del self._entries[name]

    def lost_ms(self) -> int | None:
        """T of the newest entry that left; None while none did."""
        if self._base is None:
            return self._lost_ms
        # A fork sweeps nothing, so it looks up which entry the newest ones would have pushed out.
        gone, order = self._next - self._count_max - 1, self._base._order
        first = order[0][1].place if order else self._base._next
        if gone < first:
            return self._lost_ms
        inherited = gone < self._base._next
        return (order[gone - first] if inherited else self._order[gone - self._base._next])[1].time_ms


class SeenProofs:
    """Proofs spent on one partition, by (`iss`, `jti`)."""

    def __init__(self, *, count_max: int = PROOFS_MAX, base: "SeenProofs | None" = None) -> None:
        self._recent: _Recent[bool] = (
            _Recent(window_ms=PROOF_WINDOW_MS, count_max=count_max) if base is None else base._recent.fork()
        )

    def fork(self) -> "SeenProofs":
        """A set that starts as this one and can be thrown away; this one MUST NOT fold while the fork is in use."""
        return SeenProofs(base=self)

    def lose(self, time_ms: int) -> None:
        """Proofs spent up to T = `time_ms` are not known any more: those issued by then are refused as too old."""
        self._recent.lose(time_ms)

    def fold(self, decision: DecisionMade) -> None:
        """Takes an effective decision: what proved its identity is spent, whatever the verdict."""
        self._recent.advance(decision.time_ms)
        if decision.identity is not None:
            self._recent.put((decision.identity.proof_issuer, decision.identity.proof_id), True)

    def check(self, *, issuer: str, proof_id: str, issued_at_s: int) -> Refused | None:
        """None for a proof that was certainly not spent.

        Where more proofs came within the window than are kept, the old ones are not guessed at: a proof issued no later
        than one that left may be that one, so it is refused as too old, and the sender makes a new one.
        """
        if self._recent.get((issuer, proof_id)):
            return Refused(code=Code.PROOF_REPLAYED)
        lost_ms = self._recent.lost_ms()
        if lost_ms is not None and issued_at_s * 1000 <= lost_ms + PROOF_EARLY_MS:
            return Refused(code=Code.PROOF_TIME)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstUse:
    """The decision that a request id stands for. `digest` is over record key and value, from `seal.source_digest`."""

    digest: bytes
    decision_id: str


def stands_for_its_request(decision: DecisionMade) -> bool:
    """Whether a later request of the same actor and id is a repeat of this one. It takes a place in both sets."""
    if decision.identity is None or decision.request_id is None or MEANINGS[decision.code].retryable:
        return False
    return decision.code not in {Code.DUPLICATE_OF, Code.REQUEST_ID_REUSED}


class SeenRequests:
    """Requests decided on one partition within 24 h of T, by (actor, request id); the oldest leaves first."""

    def __init__(self, *, count_max: int = REQUESTS_MAX, base: "SeenRequests | None" = None) -> None:
        self._recent: _Recent[FirstUse] = (
            _Recent(window_ms=REQUEST_WINDOW_MS, count_max=count_max) if base is None else base._recent.fork()
        )

    def fork(self) -> "SeenRequests":
        """A set that starts as this one and can be thrown away; this one MUST NOT fold while the fork is in use."""
        return SeenRequests(base=self)

    def fold(self, decision: DecisionMade) -> None:
        """Takes an effective decision. A repeat, and a refusal that may be tried again, stand for nothing."""
        self._recent.advance(decision.time_ms)
        if not stands_for_its_request(decision) or decision.identity is None or decision.request_id is None:
            return
        name = (decision.identity.actor, decision.request_id)
        if self._recent.get(name) is None:
            self._recent.put(name, FirstUse(digest=decision.source.digest, decision_id=decision.decision_id))

    def find(self, *, actor: str, request_id: str) -> FirstUse | None:
        """The first decision on this actor's request id, or None."""
        return self._recent.get((actor, request_id))
