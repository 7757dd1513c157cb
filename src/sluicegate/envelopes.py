"""What is to be published goes in, a signed envelope comes out, and stands on the policy log where every stage would
take it: the only place that makes envelopes and publishes them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from securesystemslib.signer import Signer  # type: ignore[attr-defined]

from sluicegate.enforcer.directory import load_directory
from sluicegate.enforcer.envelope import Contents, event_of, read_contents, refusal_of
from sluicegate.enforcer.policy_kinds import FIXES, Fault, Kind
from sluicegate.enforcer.state import Rejected
from sluicegate.enforcer.trust import CONTENT_BYTES_MAX, METADATA_BYTES_MAX, Domain
from sluicegate.enforcer.trust_make import (
    Envelope,
    InvalidEnvelope,
    Speakers,
    add_signature,
    read_envelope,
    sign_roles,
    sign_targets,
)
from sluicegate.given_file import read_given
from sluicegate.home import Home
from sluicegate.installation import Installation
from sluicegate.keys import signer_of
from sluicegate.loaded_bundles import loaded
from sluicegate.policy_versions import PolicyView, read_policy
from sluicegate.policy_writer import policy_writer
from sluicegate.schemas.errors import ConfigurationError, InvalidDirectory
from sluicegate.schemas.ids import Digest
from sluicegate.settings import Settings
from sluicegate.stopping import signer_from
from sluicegate.topics import require_replies

ENVELOPE_BYTES_MAX: Final = 2 * (CONTENT_BYTES_MAX + METADATA_BYTES_MAX)
"""A file writes content as JSON text, in which a quotation mark takes two bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """From when to when a version is wanted in force, event time in milliseconds, and its number."""

    version: int
    effective_at_ms: int
    expires_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Landed:
    """A version that every stage accepts: where it stands, and from when on it is in force (None: never)."""

    kind: Kind
    version: int
    digest: Digest
    position: int
    from_ms: int | None
    expires_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why nothing was published: the envelope, the code that every stage would give it, and what to do."""

    contents: Contents
    code: Fault
    reason: str
    fix: str


def make_envelope(
    what: Kind | Mapping[str, Speakers], content: bytes, *, domain: Domain, term: Term, signers: Sequence[Signer]
) -> Envelope:
    """An envelope of this kind of content, or of roles, signed by `signers`.

    Raises:
        ConfigurationError: the roles cannot be: somebody shares a key with somebody else, or a role is none.
    """
    if isinstance(what, Kind):
        metadata = sign_targets(
            what,
            content,
            domain=domain,
            version=term.version,
            effective_at_ms=term.effective_at_ms,
            expires_ms=term.expires_ms,
            signers=signers,
        )
        return Envelope(metadata=metadata, content=content)
    try:
        metadata = sign_roles(
            what,
            domain=domain,
            version=term.version,
            effective_at_ms=term.effective_at_ms,
            expires_ms=term.expires_ms,
            signers=signers,
        )
    except ValueError as error:
        raise ConfigurationError(f"the roles cannot be signed: {error}") from None
    return Envelope(metadata=metadata, content=b"")


def signed_by(envelope: Envelope, signers: Sequence[Signer], view: PolicyView | None) -> Envelope:
    """The envelope with these signatures more. `view`: the policy log, by which people can be told apart.

    Raises:
        ConfigurationError: it is no envelope, or a signature would add nothing.
    """
    try:
        for signer in signers:
            root, roles = (view.state.root, view.state.roles) if view is not None else (None, None)
            refusal = refusal_of(envelope, signer.public_key, root=root, roles=roles)
            if refusal is not None:
                raise ConfigurationError(refusal)
            envelope = add_signature(envelope, signer)
    except InvalidEnvelope as error:
        raise ConfigurationError(str(error)) from None
    return envelope


def contents_of(envelope: Envelope, view: PolicyView | None) -> Contents:
    """What the envelope says, and who is missing where the policy log is known.

    Raises:
        ConfigurationError: it is no envelope.
    """
    try:
        if view is None:
            return read_contents(envelope)
        return read_contents(envelope, root=view.state.root, roles=view.state.roles)
    except InvalidEnvelope as error:
        raise ConfigurationError(str(error)) from None


def open_envelope(file: Path) -> Envelope:
    """The envelope in a file.

    Raises:
        ConfigurationError: the file cannot be read, or holds none.
    """
    try:
        return read_envelope(read_given(file, ENVELOPE_BYTES_MAX))
    except InvalidEnvelope as error:
        raise ConfigurationError(f"`{file}`: {error}") from None


def save_envelope(file: Path, envelope: Envelope, *, new: bool) -> None:
    """Writes the file whole or not at all. `new`: there must be none yet.

    Raises:
        ConfigurationError: it cannot be written, or there is one.
    """
    try:
        if new and file.exists():
            raise ConfigurationError(f"there is a file `{file}`; name another, or remove it")
        draft = file.with_name(f".{file.name}.new")
        draft.write_bytes(envelope.to_bytes())
        draft.replace(file)
    except OSError as error:
        raise ConfigurationError(f"`{file}` cannot be written: {error.strerror}; name another file") from None


def signers_of(installation: Installation, files: Sequence[Path], kind: Kind) -> tuple[Signer, ...]:
    """Who signs with these private keys; without any, the root key or the publisher's of this installation.

    Raises:
        ConfigurationError: a key is missing, open to others, or no Ed25519 key.
    """
    if files:
        return tuple(signer_from(file) for file in files)
    keys = installation.keys
    return (signer_of(keys.root() if kind is Kind.ROOT else keys.publisher()),)


def judge(view: PolicyView, envelopes: Sequence[Envelope]) -> Refusal | None:
    """Why the stages would not take these one after another, or could decide nothing then; None where they would.

    The log in `view` is folded on, by the very fold that every stage runs.

    Raises:
        ConfigurationError: one is no envelope.
    """
    contents: Contents | None = None
    for envelope in envelopes:
        contents = contents_of(envelope, view)
        found = view.state.fold(view.state.position + 1, event_of(envelope), view.now_ms)
        if isinstance(found, Rejected):
            return Refusal(contents=contents, code=found.code, reason=found.reason, fix=FIXES[found.code])
    newest = [each.content for each in view.of(Kind.BUNDLE)[-1:]]
    newest += [each.content for each in envelopes if contents_of(each, None).kind is Kind.BUNDLE]
    misfit = None if contents is None or not newest else misfit_of(view, newest[-1])
    if contents is None or misfit is None:
        return None
    return Refusal(
        contents=contents,
        code=Fault.INVALID,
        reason=f"the directory does not conform to the bundle, so nothing would be decided: {misfit}",
        fix="publish the directory and the bundle that belong together in one command, the directory first",
    )


def misfit_of(view: PolicyView, content: bytes) -> str | None:
    """Why nothing could be decided by this bundle over the newest directory of the log; None where it could.

    Raises:
        InvalidBundle: the content is no valid bundle.
    """
    directory = view.state.directory
    if directory is None:
        return None
    try:
        load_directory(directory.whole(), loaded(content))
    except InvalidDirectory as error:
        return str(error)
    return None


async def publish_envelopes(settings: Settings, envelopes: Sequence[Envelope]) -> tuple[Landed, ...] | Refusal:
    """Publishes these one after another, and waits until each stands on the log and is accepted there; or nothing.

    Raises:
        ConfigurationError: one is no envelope, or a reply topic is missing.
        InvalidDirectory: a service's key comes back that was taken out before.
        Unavailable: the broker does not answer.
    """
    view = await read_policy(settings)
    refusal = judge(view, envelopes)
    if refusal is not None:
        return refusal
    kinds = [contents_of(each, None).kind for each in envelopes]
    places: list[int] = []
    async with policy_writer(settings, Installation(settings, Home(root=settings.home))) as writer:
        if Kind.DIRECTORY in kinds and view.state.directory is not None:
            writer.check_service_keys(view.state.directory.whole())
            await require_replies(settings, view.state.directory.credentials.replies)
        for envelope in envelopes:
            found = await writer.signed(event_of(envelope))
            if isinstance(found, Rejected):
                return _refusal(envelope, view, found)
            places.append(found)
    return await _landed(settings, envelopes, places)


async def _landed(
    settings: Settings, envelopes: Sequence[Envelope], places: Sequence[int]
) -> tuple[Landed, ...] | Refusal:
    """What became of them where they stand: another publisher may have been between."""
    view = await read_policy(settings)
    landed: list[Landed] = []
    for envelope, position in zip(envelopes, places, strict=True):
        refused = next((each for each in view.refused if each.position == position), None)
        if refused is not None:
            return _refusal(envelope, view, refused.rejected)
        version = next(each for each in view.versions if each.position == position)
        landed.append(
            Landed(
                kind=version.kind,
                version=version.version,
                digest=version.digest,
                position=position,
                from_ms=view.starts_ms(version),
                expires_ms=version.expires_ms,
            )
        )
    return tuple(landed)


def _refusal(envelope: Envelope, view: PolicyView, found: Rejected) -> Refusal:
    return Refusal(contents=contents_of(envelope, view), code=found.code, reason=found.reason, fix=FIXES[found.code])
