"""What is to stop or to go on goes in, a signed event on the policy log comes out, which every stage obeys."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import Signer  # type: ignore[attr-defined]

from sluicegate.enforcer.directory import split_uid
from sluicegate.enforcer.policy_kinds import Kind
from sluicegate.enforcer.stops import Scope, Stop
from sluicegate.home import Home
from sluicegate.installation import Installation
from sluicegate.keys import load_key, signer_of
from sluicegate.policy_writer import policy_writer
from sluicegate.schemas.errors import ConfigurationError
from sluicegate.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """The event that was appended, and everything that is stopped after it. `version` is None where none was needed."""

    version: int | None
    standing: tuple[Stop, ...]


def stop_of(scope: str, name: str) -> Stop:
    """The stop that these words name.

    Raises:
        ConfigurationError: `all` has a name, another has none, or a principal is not named by its uid.
    """
    found = Stop(scope=Scope(scope), name=name)
    if (found.scope is Scope.ALL) == bool(name):
        raise ConfigurationError("`all` takes no name, and everything else needs one")
    if found.scope is Scope.PRINCIPAL:
        try:
            split_uid(name)
        except ValueError as error:
            raise ConfigurationError(f"`{name}` is {error}") from None
    return found


def signer_from(path: Path) -> Signer:
    """Who signs with the private key in a file.

    Raises:
        ConfigurationError: it cannot be read, is open to others, or holds no Ed25519 key.
    """
    try:
        key = load_key(path)
    except FileNotFoundError:
        raise ConfigurationError(f"there is no key at `{path}`") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(f"`{path}` must hold an Ed25519 key; give another")
    return signer_of(key)


async def stop(settings: Settings, wanted: Stop, *, signers: Sequence[Signer] = ()) -> Changed:
    """Stops this, by a signed event. `signers`: the incident key, else the publisher's.

    Raises:
        ConfigurationError, Unavailable: a key is missing, or the broker does not answer.
        InvalidBundle: the signers may not stop anything; nothing was appended.
    """
    return await _change(settings, Kind.STOP, wanted, signers)


async def resume(settings: Settings, wanted: Stop, *, signers: Sequence[Signer] = ()) -> Changed:
    """Undoes this stop, by an event that as many people sign as the roles demand; the rest as `stop`."""
    return await _change(settings, Kind.RESUME, wanted, signers)


async def _change(settings: Settings, kind: Kind, wanted: Stop, signers: Sequence[Signer]) -> Changed:
    async with policy_writer(settings, Installation(settings, Home(root=settings.home))) as writer:
        stands = wanted in writer.stops.standing
        version = None
        if stands is (kind is Kind.RESUME):
            version = await writer.change_stops(kind, frozenset({wanted}), signers=signers)
        return Changed(version=version, standing=tuple(sorted(writer.stops.standing)))
