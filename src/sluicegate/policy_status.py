"""An environment goes in, what it and its workers run comes out, with what differs or ends soon: the only place of it.

What a worker runs is what it sealed: each partition's newest effective decision names the policy it was decided by, and
the policy log says what should have been in force at its event time. So an idle partition raises no alarm.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sluicegate.broker_access import broker_config
from sluicegate.enforcer.policy_kinds import Kind
from sluicegate.enforcer.seal import Effective, Verifier
from sluicegate.policy_versions import EXPIRY_WARN_MS, PolicyView, Version, read_policy
from sluicegate.schemas import codec
from sluicegate.schemas.errors import SluicegateError
from sluicegate.schemas.events import DecisionMade, PolicyVersion
from sluicegate.settings import Settings
from sluicegate.streams.kafka import Broker
from sluicegate.streams.topology import ENFORCER, Topology

SHOWN: Final = (Kind.ROOT, Kind.ROLES, Kind.BUNDLE, Kind.DIRECTORY)
DECISIONS_BACK: Final = 512
DAY_MS: Final = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A version in force since `since_ms` (T); `next_`: the newest one, where that is another, and its start."""

    version: Version
    since_ms: int
    next_: tuple[Version, int | None] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """What one partition was decided by last, at `time_ms` (T); None where nothing was decided there lately."""

    partition: int
    policy: PolicyVersion | None
    time_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What an environment runs. `problem`: why that is not known; `unseen`: why its workers are not."""

    env: str
    standing: tuple[Standing, ...] = ()
    stopped: tuple[str, ...] = ()
    workers: tuple[Worker, ...] = ()
    alarms: tuple[str, ...] = ()
    problem: str = ""
    unseen: str = ""

    def of(self, kind: Kind) -> Standing | None:
        """The version of a kind that is in force."""
        return next((each for each in self.standing if each.version.kind is kind), None)


async def read_status(name: str, settings: Settings) -> Status:
    """What runs behind `settings.bootstrap`; what cannot be known is said in the answer."""
    try:
        view = await read_policy(settings)
    except SluicegateError as error:
        return Status(env=name, problem=str(error))
    workers: tuple[Worker, ...] = ()
    unseen = ""
    try:
        workers = await _workers(settings, view)
    except SluicegateError as error:
        unseen = str(error)
    standing = tuple(found for kind in SHOWN if (found := _standing(view, kind)) is not None)
    missing = [
        kind for kind in SHOWN if kind is not Kind.ROLES and not any(each.version.kind is kind for each in standing)
    ]
    return Status(
        env=name,
        standing=standing,
        stopped=tuple(str(each) for each in sorted(view.state.stops.standing)),
        workers=workers,
        alarms=(
            *(f"no {kind.lower()} is in force: everything is denied" for kind in missing),
            *filter(None, (expiry_of(each.version, view.now_ms) for each in standing)),
            *filter(None, (drift_of(view, each) for each in workers)),
        ),
        unseen=unseen,
    )


def _standing(view: PolicyView, kind: Kind) -> Standing | None:
    found = view.in_force(kind)
    if found is None:
        return None
    newest = view.of(kind)[-1]
    return Standing(
        version=found[0],
        since_ms=found[1],
        next_=None if newest is found[0] else (newest, view.starts_ms(newest)),
    )


async def _workers(settings: Settings, view: PolicyView) -> tuple[Worker, ...]:
    topology = Topology(tenant=settings.tenant, partitions=settings.partitions)
    keys = view.state.stage_keys(ENFORCER)
    found = []
    async with Broker(broker_config(settings, "status")) as broker:
        for partition in range(settings.partitions):
            place = topology.place(ENFORCER, env=settings.env, epoch=settings.epoch, partition=partition)
            found.append(await _worker(broker, Verifier(place, lambda: keys)))
    return tuple(found)


async def _worker(broker: Broker, verifier: Verifier) -> Worker:
    place = verifier.place
    end = await broker.end_offset(place.topic, place.partition)
    start = max(await broker.start_offset(place.topic, place.partition), end - DECISIONS_BACK)
    newest = Worker(partition=place.partition, policy=None, time_ms=None)
    async for batch in broker.read(place.topic, place.partition, start=start, end=end):
        for record in batch:
            verdict = verifier.verify(record)
            if not isinstance(verdict, Effective) or not verifier.vouches(verdict):
                continue
            made = codec.decode(record.value, DecisionMade)
            if made.policy is not None:
                newest = Worker(partition=place.partition, policy=made.policy, time_ms=made.time_ms)
    return newest


def expiry_of(version: Version, now_ms: int) -> str | None:
    """What there is to say about the end of a version, at event time `now_ms`; None while that is far."""
    left_ms = version.expires_ms - now_ms
    name = f"the {version.kind.lower()} v{version.version}"
    if left_ms <= 0:
        return f"{name} has expired {-left_ms / DAY_MS:.1f} days ago: everything is denied; publish the next version"
    if left_ms < EXPIRY_WARN_MS:
        return f"{name} expires in {left_ms / DAY_MS:.1f} days: publish the next version before"
    return None


def drift_of(view: PolicyView, worker: Worker) -> str | None:
    """How the policy that decided differs from the one in force at its event time; None where it does not."""
    if worker.policy is None or worker.time_ms is None:
        return None
    run = worker.policy
    for kind, version, digest in (
        (Kind.BUNDLE, run.bundle_version, run.bundle_digest),
        (Kind.DIRECTORY, run.directory_version, run.directory_digest),
        (Kind.ROOT, run.root_version, None),
    ):
        found = view.in_force(kind, worker.time_ms)
        if found is None or (version, digest or found[0].digest) != (found[0].version, found[0].digest):
            due = "none was" if found is None else f"v{found[0].version} {found[0].digest} was"
            return (
                f"drift: partition {worker.partition} decided under {kind.lower()} v{version} {digest or ''} when "
                f"{due} in force; see the log of its enforcer"
            )
    return None


def drift_between(statuses: Sequence[Status]) -> str | None:
    """How the bundles of the environments differ; None where all run the same."""
    running: Mapping[str, Version] = {
        each.env: found.version for each in statuses if (found := each.of(Kind.BUNDLE)) is not None
    }
    if len({version.digest for version in running.values()}) < 2:
        return None
    said = ", ".join(f"`{env}` runs {version.digest[:19]}.. (v{version.version})" for env, version in running.items())
    return f"drift: {said}; `sluicegate policy promote FROM TO` carries one over"
