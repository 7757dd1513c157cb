"""A bundle folder and a directory file go in, signed policy events come out on the policy log; only valid ones."""

import json
from dataclasses import dataclass
from pathlib import Path

from sluicegate.bundle_folder import read_bundle
from sluicegate.clock import StackClock
from sluicegate.enforcer.bundle import load_bundle
from sluicegate.enforcer.credentials import parse_credentials
from sluicegate.enforcer.directory import load_directory
from sluicegate.enforcer.state import Accepted, PolicyLog, Rejected
from sluicegate.enforcer.trust import Kind, digest_of, sign_targets
from sluicegate.home import Home
from sluicegate.installation import EXPIRES_MS, Installation
from sluicegate.keys import signer_of
from sluicegate.schemas import codec
from sluicegate.schemas.errors import CodecError, ConfigurationError, InvalidBundle, InvalidDirectory
from sluicegate.schemas.events import DirectoryChanged, PolicyKind, PolicyPublished
from sluicegate.schemas.records import Unsent
from sluicegate.settings import Settings
from sluicegate.streams.kafka import Broker, BrokerConfig
from sluicegate.streams.policy_tail import PARTITION, decode_policy_event
from sluicegate.streams.topology import Topology


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What is in force after a publication. `changed` is false where it was in force before."""

    version: int
    digest: str
    policies: int
    directory_version: int
    changed: bool


async def publish(settings: Settings, bundle_dir: Path, directory_path: Path) -> Published:
    """Publishes what is not in force yet: root, stage keys, directory, bundle, in this order.

    Raises:
        InvalidBundle, InvalidDirectory: nothing was published; what was in force stays so.
        ConfigurationError, Unavailable: a file cannot be read, or the broker does not answer.
    """
    home = Home(root=settings.home)
    installation = Installation(settings, home)
    bundle = read_bundle(bundle_dir)
    loaded = load_bundle(bundle)
    try:
        text = directory_path.read_bytes()  # noqa: ASYNC240 - once, at the start of a short command
    except OSError as error:
        raise ConfigurationError(f"the directory `{directory_path}` cannot be read: {error.strerror}") from None
    directory = installation.directory_content(text)
    load_directory(directory, loaded)
    parse_credentials(json.loads(directory))
    topology = Topology(tenant=settings.tenant, partitions=settings.partitions)
    config = BrokerConfig(bootstrap=settings.bootstrap, client_id="sluicegate-publish")
    async with Broker(config) as broker:
        publisher = _Publisher(settings, home, installation, broker, topology.policy)
        await publisher.catch_up()
        await publisher.root()
        await publisher.content(Kind.KEYS, installation.stage_keys())
        directory_version, directory_changed = await publisher.content(Kind.DIRECTORY, directory)
        version, changed = await publisher.content(Kind.BUNDLE, bundle)
    return Published(
        version=version,
        digest=digest_of(bundle),
        policies=len(loaded.policies),
        directory_version=directory_version,
        changed=changed or directory_changed,
    )


class _Publisher:
    """Appends to the policy log what its fold does not hold yet. Versions rise across epochs: `keys/` remembers."""

    def __init__(self, settings: Settings, home: Home, installation: Installation, broker: Broker, topic: str) -> None:
        self._installation = installation
        self._broker = broker
        self._topic = topic
        self._clock = StackClock(home.root if settings.event_time == "enforcer" else None)
        self._state = PolicyLog(domain=installation.domain, root_digest=installation.root_digest())
        self._file = home.keys / "published.json"
        self._digests: dict[Kind, str] = {}

    async def catch_up(self) -> None:
        """Folds the log as it stands."""
        async for batch in self._broker.read(self._topic, PARTITION, start=0):
            for record in batch:
                try:
                    event = decode_policy_event(record)
                except CodecError:
                    self._state.skip(record.offset)
                    continue
                found = self._state.fold(record.offset, event, record.timestamp_ms)
                if isinstance(found, Accepted):
                    self._digests[found.kind] = digest_of(event.content)

    async def root(self) -> None:
        """The first root, where the log has none."""
        if self._state.version_of(Kind.ROOT) == 0:
            metadata = self._installation.root_metadata()
            await self._append(PolicyPublished(kind=PolicyKind.ROOT, version=1, metadata=metadata, content=b""))

    async def content(self, kind: Kind, content: bytes) -> tuple[int, bool]:
        """The version of `kind` that holds `content`, and whether it had to be published."""
        digest, current = digest_of(content), self._state.version_of(kind)
        if current and self._digests.get(kind) == digest:
            return current, False
        remembered = self._remembered().get(kind.value, {})
        same = not current and remembered.get("digest") == digest
        version = max(current, int(remembered.get("version", 0))) + (0 if same else 1)
        metadata = sign_targets(
            kind,
            content,
            domain=self._installation.domain,
            version=version,
            effective_at_ms=self._clock.now_ms() if current else 0,
            expires_ms=EXPIRES_MS,
            signers=(signer_of(self._installation.keys.publisher()),),
        )
        self._remember(kind, version, digest)
        if kind is Kind.DIRECTORY:
            await self._append(DirectoryChanged(version=version, metadata=metadata, content=content))
        else:
            await self._append(
                PolicyPublished(kind=PolicyKind(kind.value), version=version, metadata=metadata, content=content)
            )
        return version, True

    async def _append(self, event: PolicyPublished | DirectoryChanged) -> None:
        """Appends only what the same fold that the stages run accepts.

        Raises:
            InvalidBundle, InvalidDirectory: it would be rejected.
        """
        found = self._state.fold(self._state.position + 1, event, self._clock.now_ms())
        if isinstance(found, Rejected):
            problem = (f"the policy log would reject this version: {found.reason}",)
            raise InvalidDirectory(problem) if isinstance(event, DirectoryChanged) else InvalidBundle(problem)
        await self._broker.append(self._topic, PARTITION, [Unsent(key=None, value=codec.encode(event))])

    def _remembered(self) -> dict[str, dict[str, str | int]]:
        try:
            found: dict[str, dict[str, str | int]] = json.loads(self._file.read_bytes())
        except FileNotFoundError:
            return {}
        return found

    def _remember(self, kind: Kind, version: int, digest: str) -> None:
        known = {**self._remembered(), kind.value: {"version": version, "digest": digest}}
        temporary = self._file.with_suffix(".new")
        temporary.write_text(json.dumps(known, indent=1), encoding="utf-8")
        temporary.replace(self._file)
