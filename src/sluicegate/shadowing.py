"""A bundle goes in, a signed candidate that decides in shadow stands on the policy log; and its end."""

from collections.abc import Sequence
from dataclasses import dataclass

from securesystemslib.signer import Signer  # type: ignore[attr-defined]

from sluicegate.enforcer.bundle import load_bundle
from sluicegate.enforcer.candidate import NOTHING
from sluicegate.enforcer.directory import load_directory
from sluicegate.enforcer.trust import digest_of
from sluicegate.home import Home
from sluicegate.installation import EXPIRES_MS, Installation
from sluicegate.policy_writer import policy_writer
from sluicegate.schemas.errors import ConfigurationError
from sluicegate.schemas.ids import Digest
from sluicegate.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The candidate that was appended; it stands from half a second later on."""

    version: int
    digest: Digest


async def start_shadow(
    settings: Settings, bundle: bytes, *, for_ms: int | None = None, signers: Sequence[Signer] = ()
) -> Started:
    """Lets `bundle` decide in shadow, for `for_ms` of event time or until it is stopped. `signers`: who signs, else the
    publisher.

    Raises:
        InvalidBundle, InvalidDirectory: it could decide nothing, or its signers may set no candidate; nothing was
            appended.
        ConfigurationError, Unavailable: a key is missing, nothing is published yet, or the broker does not answer.
    """
    loaded = load_bundle(bundle)
    home = Home(root=settings.home)
    async with policy_writer(settings, Installation(settings, home)) as writer:
        directory = writer.directory
        if directory is None:
            raise ConfigurationError("no directory is published yet: run `sluicegate publish` first")
        load_directory(directory, loaded)
        expires_ms = EXPIRES_MS if for_ms is None else writer.now_ms() + for_ms
        version = await writer.change_shadow(bundle, expires_ms=expires_ms, signers=signers)
    home.shadow_wanted.touch()
    return Started(version=version, digest=digest_of(bundle))


async def stop_shadow(settings: Settings, *, signers: Sequence[Signer] = ()) -> bool:
    """Ends the shadow; False where no candidate stood. Raises as `start_shadow`."""
    home = Home(root=settings.home)
    async with policy_writer(settings, Installation(settings, home)) as writer:
        stood = writer.shadowed
        if stood:
            await writer.change_shadow(NOTHING, signers=signers)
    home.shadow_wanted.unlink(missing_ok=True)
    return stood
