"""A broker's kind and a directory go in, stages of the product running on that broker come out, and signed policy
events for them; the same for every bench of whole stages.
"""

import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.enforcer import POLICIES, STOP_S, running_broker
from bench.stand import PARTITIONS, TENANT, bench_settings, broker_config
from sluicegate.child import Program, spawn
from sluicegate.enforcer.policy_kinds import Event, Kind
from sluicegate.enforcer.trust_make import sign_targets
from sluicegate.home import Home, open_home
from sluicegate.installation import Installation
from sluicegate.keys import signer_of
from sluicegate.policy_writer import EMBEDDED_LEAD_MS
from sluicegate.publish import publish
from sluicegate.schemas import codec
from sluicegate.schemas.events import DirectoryChanged, PolicyKind, PolicyPublished
from sluicegate.schemas.records import Unsent
from sluicegate.settings import Settings
from sluicegate.streams.kafka import Broker
from sluicegate.streams.topology import Topology
from sluicegate.wiring import prepare

EVENT_BYTES_MAX: Final = 4 * 1024**2  # a whole directory of 10,000 entities is over the default
EXPIRES_MS: Final = 4_102_444_800_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """Running stages and what is needed to speak to them."""

    kind: str
    settings: Settings
    broker: Broker
    installation: Installation
    topology: Topology

    def signed(self, kind: Kind, version: int, content: bytes) -> Event:
        """A version signed by the publisher, which starts by its place in the log."""
        metadata = sign_targets(
            kind,
            content,
            domain=self.installation.domain,
            version=version,
            effective_at_ms=version,
            expires_ms=EXPIRES_MS,
            signers=[signer_of(self.installation.keys.publisher())],
        )
        if kind is Kind.DIRECTORY:
            return DirectoryChanged(version=version, metadata=metadata, content=content)
        return PolicyPublished(kind=PolicyKind(kind.value), version=version, metadata=metadata, content=content)

    async def append(self, event: Event) -> None:
        """Puts an event on the policy log, stamped as the publisher stamps it."""
        stamp_ms = time.time_ns() // 1_000_000 + (EMBEDDED_LEAD_MS if self.kind == "embedded" else 0)
        unsent = Unsent(key=None, value=codec.encode(event))
        await self.broker.append(self.topology.policy, 0, [unsent], timestamp_ms=stamp_ms)


@asynccontextmanager
async def running_stages(kind: str, names: Sequence[str], directory: bytes | None = None) -> AsyncIterator[Stages]:
    """The example company, with another directory where one is given, and these stages, each in a process of its own,
    on a broker of the bench's own.
    """
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sluicegate-bench-")))
        home = open_home(folder / "home")
        bootstrap = await stack.enter_async_context(running_broker(kind, home))
        own = bench_settings(home=home.root, bootstrap=bootstrap, kind=kind)
        settings = own.model_copy(update={"slice_bytes_max": EVENT_BYTES_MAX})
        broker = await stack.enter_async_context(Broker(broker_config(settings, "bench")))
        path = folder / "directory.json"
        path.write_bytes(directory or (POLICIES / "directory.json").read_bytes())
        await prepare(settings)
        await publish(settings, POLICIES, path, development=True)
        for name in names:
            command = (sys.executable, "-P", "-m", "sluicegate", "run", name)
            program = Program(name=name, command=command, environment=settings.environment(), log=home.log_file(name))
            stack.push_async_callback((await spawn(program)).stop, limit_s=STOP_S)
        installation = Installation(settings, Home(root=settings.home), development=True)
        topology = Topology(tenant=TENANT, partitions=PARTITIONS)
        yield Stages(kind=kind, settings=settings, broker=broker, installation=installation, topology=topology)


def larger_directory(entities: int, purposes: Sequence[str]) -> bytes:
    """The example company's directory with so many people more that it holds `entities`, each for these purposes."""
    document = json.loads((POLICIES / "directory.json").read_bytes())
    like = next(each for each in document["entities"] if each["uid"]["id"] == "eva.eng")
    wanted = [{"__entity": {"type": "Purpose", "id": purpose}} for purpose in purposes]
    document["entities"] += [
        {**like, "uid": {"type": "User", "id": f"u{number}"}, "attrs": {"onLeave": False, "purposes": wanted}}
        for number in range(entities - len(document["entities"]))
    ]
    return json.dumps(document, separators=(",", ":")).encode()
