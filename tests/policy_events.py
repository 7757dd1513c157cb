"""Policy events of a small house, signed by people who can be told apart; and loaders that only note what they load."""

import json
from collections.abc import Iterable, Mapping

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner

from sluicegate.enforcer.directory_change import DirectoryContent, change_content
from sluicegate.enforcer.pairs import Loaders
from sluicegate.enforcer.policy_kinds import Kind
from sluicegate.enforcer.state import Event, PolicyLog
from sluicegate.enforcer.stops import Stop, stops_content
from sluicegate.enforcer.trust import Domain, digest_of
from sluicegate.enforcer.trust_make import Signatory, Speakers, make_root, sign_roles, sign_targets
from sluicegate.schemas.errors import InvalidDirectory
from sluicegate.schemas.events import DirectoryChanged, PolicyKind, PolicyPublished

NOW_MS = 1_800_000_000_000
FAR_MS = NOW_MS + 365 * 24 * 3600 * 1000
DOMAIN = Domain(env="dev", tenant="heron")


def signer(seed: int) -> CryptoSigner:
    """A key that is the same in every run."""
    return CryptoSigner(Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32))


ROOT, PUBLISHER, STRANGER = (signer(seed) for seed in (1, 2, 3))
ANA, ANA_AGAIN, BEN, CLEO = (signer(seed) for seed in (11, 12, 13, 14))
HOLDERS = {"ana": (ANA, ANA_AGAIN), "ben": (BEN,), "cleo": (CLEO,)}


def speakers(*people: str, threshold: int = 1) -> Speakers:
    """All keys of these people, of whom `threshold` must sign."""
    found = tuple(Signatory(holder=name, key=key.public_key) for name in people for key in HOLDERS[name])
    return Speakers(signatories=found, threshold=threshold)


def root_event(
    version: int = 1, *, publisher: CryptoSigner = PUBLISHER, domain: Domain = DOMAIN, expires_ms: int = FAR_MS
) -> PolicyPublished:
    metadata = make_root(
        domain=domain,
        version=version,
        expires_ms=expires_ms,
        root_keys=[ROOT.public_key],
        root_threshold=1,
        publisher_keys=[publisher.public_key],
        publisher_threshold=1,
        signers=[ROOT],
    )
    return PolicyPublished(kind=PolicyKind.ROOT, version=version, metadata=metadata, content=b"")


def roles_event(
    version: int,
    roles: Mapping[str, Speakers],
    *,
    signers: Iterable[CryptoSigner] = (PUBLISHER,),
    effective_at_ms: int = NOW_MS,
    expires_ms: int = FAR_MS,
    domain: Domain = DOMAIN,
) -> PolicyPublished:
    metadata = sign_roles(
        roles,
        domain=domain,
        version=version,
        effective_at_ms=effective_at_ms,
        expires_ms=expires_ms,
        signers=list(signers),
    )
    return PolicyPublished(kind=PolicyKind.ROLES, version=version, metadata=metadata, content=b"")


def event(
    kind: Kind,
    version: int,
    content: bytes,
    *,
    signers: Iterable[CryptoSigner] = (PUBLISHER,),
    effective_at_ms: int = NOW_MS,
    expires_ms: int = FAR_MS,
    domain: Domain = DOMAIN,
) -> Event:
    metadata = sign_targets(
        kind,
        content,
        domain=domain,
        version=version,
        effective_at_ms=effective_at_ms,
        expires_ms=expires_ms,
        signers=list(signers),
    )
    if kind is Kind.DIRECTORY:
        return DirectoryChanged(version=version, metadata=metadata, content=content)
    return PolicyPublished(kind=PolicyKind(kind.value), version=version, metadata=metadata, content=content)


def entity(name: str, kind: str = "User") -> dict[str, object]:
    return {"uid": {"type": kind, "id": name}, "attrs": {}, "parents": []}


def whole(*names: str) -> bytes:
    """A whole directory of these users."""
    return json.dumps({"entities": [entity(name) for name in names], "service_keys": [], "issuers": []}).encode()


def put(*names: str, kind: str = "User") -> bytes:
    """A change that puts these entities."""
    return change_content({"put": [entity(name, kind) for name in names]})


def stops(kind: Kind, version: int, *named: Stop, signers: Iterable[CryptoSigner] = (PUBLISHER,)) -> Event:
    return event(kind, version, stops_content(named), signers=signers)


def load_directory(content: DirectoryContent, bundle: str, before: object) -> str:
    """The names in a directory; the user `odd` conforms to no bundle."""
    del bundle, before
    names = sorted(uid.split('"')[1] for uid in content.entities)
    if "odd" in names:
        raise InvalidDirectory(('User::"odd" has no `purposes`',))
    return " ".join(names)


def policy_log(*, domain: Domain = DOMAIN) -> PolicyLog:
    """A log whose rules are (text of the bundle, names of the directory)."""
    loaders = Loaders(
        bundle=lambda content: content.decode(),  # type: ignore[arg-type,return-value]
        types=lambda _: frozenset({"User", "Model"}),
        directory=load_directory,  # type: ignore[arg-type]
        judging=lambda bundle, directory, before: (bundle, directory),  # type: ignore[arg-type,return-value]
    )
    return PolicyLog(domain=domain, root_digest=digest_of(root_event(domain=domain).metadata), loaders=loaders)
