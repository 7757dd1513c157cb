"""The policy log, followed to its end again and again, goes in; signed promises that nothing of it is missing come out:
the only place that appends to the freshness topic.

Order of effects: the stamp of the own record before is known, then the end of the policy log is asked for, then it is
received up to there, then the promise is appended. The stamp of that record is the next one's.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

from securesystemslib.signer import Signer  # type: ignore[attr-defined]

from sluicegate.enforcer.freshness import STALE_AFTER_MS, promise, sign_freshness
from sluicegate.enforcer.trust import Domain, TrustedRoot
from sluicegate.schemas.errors import ConfigurationError, Unavailable
from sluicegate.schemas.records import Unsent
from sluicegate.streams.freshness_tail import PARTITION
from sluicegate.streams.kafka import Broker
from sluicegate.streams.policy_tail import PolicyTail
from sluicegate.streams.ports import Log

log = logging.getLogger(__name__)
INTERVAL_S: Final = 0.2
IDLE_AFTER_S: Final = 60.0
IDLE_INTERVAL_S: Final = 10.0


async def always() -> bool:
    """For a topic whose broker forgets its old records."""
    return True


class Demand:
    """Whether a promise is wanted now: somebody asked within `IDLE_AFTER_S`, or none was made for `IDLE_INTERVAL_S`.

    For a broker that keeps whatever it is given: about 2.5 KB of its memory a promise, 1 GB a day at five a second. The
    first request after a quiet time waits for two promises, some 400 ms.
    """

    def __init__(
        self, broker: Log, *, topic: str, partitions: int, monotonic_s: Callable[[], float] = time.monotonic
    ) -> None:
        """`topic`: of the requests."""
        self._broker = broker
        self._topic = topic
        self._partitions = partitions
        self._monotonic_s = monotonic_s
        self._ends: tuple[int, ...] = ()
        self._moved_s = self._promised_s = -IDLE_AFTER_S

    async def __call__(self) -> bool:
        """Asks where the requests end; a True is taken to be followed.

        Raises:
            Unavailable: the broker does not answer.
        """
        ends = tuple([await self._broker.end_offset(self._topic, each) for each in range(self._partitions)])
        now_s = self._monotonic_s()
        if ends != self._ends:
            self._ends, self._moved_s = ends, now_s
        wanted = now_s - self._moved_s < IDLE_AFTER_S or now_s - self._promised_s >= IDLE_INTERVAL_S
        if wanted:
            self._promised_s = now_s
        return wanted


class FreshnessWriter:
    """One writer of promises; several side by side contradict nobody.

    `signer_for`: who signs under a root. `clock_ms`: event time where the broker keeps its writers' stamps, and None
    where it stamps itself; `now_ms`: the wall clock or that one.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        topic: str,
        policy: PolicyTail,
        domain: Domain,
        signer_for: Callable[[TrustedRoot], Signer],
        clock_ms: Callable[[], int | None],
        now_ms: Callable[[], int],
        timeout_s: float,
    ) -> None:
        self._broker = broker
        self._topic = topic
        self._policy = policy
        self._domain = domain
        self._signer_for = signer_for
        self._clock_ms = clock_ms
        self._now_ms = now_ms
        self._timeout_s = timeout_s
        self._stamp_ms = 0

    async def step(self) -> None:
        """Appends one promise; the first of a writer, which has no record before, promises nothing.

        Raises:
            Unavailable: the broker does not answer; call again.
            ConfigurationError: no root is published, it does not name our key, or the topic keeps its writers' stamps.
        """
        await self._policy.receive_end(timeout_s=self._timeout_s)
        if not self._policy.followed:
            raise ConfigurationError("the policy log is followed no more: start the stage again")
        root = self._policy.state.root
        if root is None:
            raise ConfigurationError("no root of trust stands on the policy log: run `sluicegate publish`")
        made = promise(position=self._policy.position, stamp_before_ms=self._stamp_ms)
        clock_ms = self._clock_ms()
        value = sign_freshness(
            made, domain=self._domain, expires_ms=self._now_ms() + STALE_AFTER_MS, signer=self._signer_for(root)
        )
        _, stamp_ms = await self._broker.append_stamped(
            self._topic, PARTITION, [Unsent(key=None, value=value)], timestamp_ms=clock_ms
        )
        stamp_ms = stamp_ms if clock_ms is None else clock_ms
        if stamp_ms is None:
            raise ConfigurationError(
                f"`{self._topic}` keeps its writers' stamps: run `sluicegate topics apply`, which makes it "
                "`message.timestamp.type=LogAppendTime`"
            )
        self._stamp_ms = stamp_ms

    async def run(
        self,
        stopping: asyncio.Event,
        *,
        ready: Callable[[], None],
        wanted: Callable[[], Awaitable[bool]] = always,
    ) -> None:
        """Promises until `stopping`, whenever one is `wanted`; a broker that does not answer is asked again.

        Raises:
            ConfigurationError: as `step`.
        """
        while not stopping.is_set():
            began_s = time.monotonic()
            try:
                if await wanted():
                    await self.step()
                ready()
            except Unavailable as error:
                log.warning("freshness waits", extra={"why": str(error)})
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), max(0.0, INTERVAL_S - (time.monotonic() - began_s)))
