"""What an installation trusts: its key folder goes in; root of trust, stage keys and the directory to publish come out.

A one-box installation (`development`) makes what is missing and adds keys and an issuer of its own to the directory.
A real deployment only reads: each host holds its own keys, made by `sluicegate keys new`, and nothing is added.
"""

import json
import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from securesystemslib.signer import Key  # type: ignore[attr-defined]

from sluicegate.enforcer.seal import Signer, SigningKey, StageKey
from sluicegate.enforcer.stage_keys import OPTIONAL, STAGES, stage_keys_content
from sluicegate.enforcer.trust import Domain, digest_of
from sluicegate.enforcer.trust_make import make_root
from sluicegate.home import Home
from sluicegate.keys import PRIVATE, PUBLIC, KeyFolder, KeyKind, KeyName, key_id_of, public_jwk, signer_of, tuf_key_of
from sluicegate.schemas.errors import ConfigurationError, InvalidDirectory
from sluicegate.schemas.ids import REPLY_NAME, Digest, KeyId
from sluicegate.settings import Settings

ISSUER: Final = "urn:sluicegate:development-issuer"
ISSUER_KEY: Final = "development"
ROOT_FILE: Final = "root.json"
LATER_ROOTS: Final = "roots"
"""In the data directory: roots from version 2 on, `2.root.json` and so on, as TUF names them."""
TOKEN_AUDIENCE: Final = "sluicegate"  # noqa: S105 - a name, not a secret
EXPIRES_MS: Final = 4_102_444_800_000
"""2100-01-01: the keys of one machine are replaced by hand; expiry with alarms comes with `policy sign`."""


class Installation:
    """The keys and the root of trust of one installation. Each stage process reads its own private key and no other's.

    `development`: a one-box installation, which makes the keys that are missing.
    """

    def __init__(self, settings: Settings, home: Home, *, development: bool = False) -> None:
        self.domain = Domain(env=settings.env, tenant=settings.tenant)
        self.development = development
        self.keys = KeyFolder(settings.keys_dir or home.keys, may_make=development)
        self.root_file = settings.root_file or self.keys.path / ROOT_FILE
        self._later_roots = home.root / LATER_ROOTS

    def root_metadata(self) -> bytes:
        """The signed root, version 1: the one that everybody pins.

        Raises:
            ConfigurationError: it is missing (and is not made here), or cannot be read or written.
        """
        try:
            return self.root_file.read_bytes()
        except FileNotFoundError:
            if self.development:
                return self.make_root()
        except OSError as error:
            raise ConfigurationError(f"`{self.root_file}` cannot be read: {error.strerror}; mend its mode") from None
        raise ConfigurationError(
            f"there is no root of trust at `{self.root_file}`: put the `{ROOT_FILE}` there that "
            "`sluicegate keys new root` made, or set `SLUICEGATE_ROOT_FILE`"
        )

    def roots(self) -> tuple[bytes, ...]:
        """The signed roots known here, version 1 first and none left out.

        Raises:
            ConfigurationError: as `root_metadata`.
        """
        found = [self.root_metadata()]
        file = self._later_root(2)
        try:
            while file.is_file():
                found.append(file.read_bytes())
                file = self._later_root(len(found) + 1)
        except OSError as error:
            raise ConfigurationError(f"`{file}` cannot be read: {error.strerror}; mend its mode") from None
        return tuple(found)

    def keep_root(self, version: int, metadata: bytes) -> None:
        """Keeps a root that followed the first, for a log that is begun anew.

        Raises:
            ConfigurationError: it cannot be written.
        """
        file = self._later_root(version)
        try:
            if version == 1 or (file.is_file() and file.read_bytes() == metadata):
                return
            file.parent.mkdir(mode=0o700, exist_ok=True)
            draft = file.with_suffix(".new")
            draft.write_bytes(metadata)
            draft.replace(file)
        except OSError as error:
            raise ConfigurationError(f"`{file}` cannot be written: {error.strerror}; mend its folder") from None

    def _later_root(self, version: int) -> Path:
        return self._later_roots / f"{version}.{ROOT_FILE}"

    def make_root(self) -> bytes:
        """Signs root version 1 over the publisher's public half and those for freshness, and writes it; it is never
        overwritten.

        Raises:
            ConfigurationError: the root's private key or one of the public halves is missing, or there is a root.
        """
        if self.development:
            self.keys.publisher()
            self.keys.freshness()
        root = signer_of(self.keys.root())
        made = make_root(
            domain=self.domain,
            version=1,
            expires_ms=EXPIRES_MS,
            root_keys=(root.public_key,),
            root_threshold=1,
            publisher_keys=(self._tuf_keys(KeyKind.PUBLISHER)[0],),
            publisher_threshold=1,
            timestamp_keys=self._tuf_keys(KeyKind.FRESHNESS),
            signers=(root,),
        )
        try:
            with self.root_file.open("xb") as file:
                file.write(made)
        except FileExistsError:
            raise ConfigurationError(f"there is a root of trust at `{self.root_file}`; nobody replaces one") from None
        except OSError as error:
            raise ConfigurationError(f"`{self.root_file}` cannot be written: {error.strerror}") from None
        return made

    def _tuf_keys(self, kind: KeyKind) -> tuple[Key, ...]:
        """The public halves of this kind, newest first; at least one.

        Raises:
            ConfigurationError: there is none, or one is no Ed25519 key.
        """
        names = self.keys.of(kind, endings=(PRIVATE, PUBLIC)) or (KeyName(kind=kind),)
        found = [self.keys.public(name) for name in names]
        if not all(isinstance(each, Ed25519PublicKey) for each in found):
            raise ConfigurationError(f"the {kind} key must be Ed25519; make another with `sluicegate keys new {kind}`")
        return tuple(tuf_key_of(each) for each in found if isinstance(each, Ed25519PublicKey))

    def root_digest(self) -> Digest:
        """SHA-256 of the root that every stage of this installation trusts."""
        return digest_of(self.root_metadata())

    def stage_signer(self, stage: str) -> Signer:
        """The stage's newest private key, whether or not it is admitted."""
        return signer_with(self.keys.stage(stage), stage)

    def stage_signers(self, stage: str) -> tuple[Signer, ...]:
        """All private keys of the stage, newest first.

        Raises:
            ConfigurationError: there is none, or one is open to others.
        """
        held = self.keys.of(KeyKind.STAGE, stage)
        return tuple(signer_with(self.keys.ed25519(name), stage) for name in held) or (self.stage_signer(stage),)

    def stage_keys(self, before: Mapping[KeyId, StageKey] | None = None) -> bytes:
        """Content of the KEYS version that admits every stage key of this folder beside those admitted `before`.

        What was admitted or revoked before stays so: the policy log says what counts, never the files alone. A new key
        counts from the first event time on, since it may have to seal answers to what waited for it.

        Raises:
            ConfigurationError: a stage would be left without a key.
        """
        found = dict(before or {})
        for stage in sorted(STAGES):
            names = self.keys.of(KeyKind.STAGE, stage, endings=(PRIVATE, PUBLIC))
            if (
                not names
                and self.development
                and not any(key.stage == stage and key.revoked_at_ms is None for key in found.values())
            ):
                self.keys.stage(stage)
                names = self.keys.of(KeyKind.STAGE, stage)
            for name in names:
                public = self.keys.public(name)
                if not isinstance(public, Ed25519PublicKey):
                    raise ConfigurationError(f"`{self.keys.file(name)}` must hold an Ed25519 key; put another there")
                key_id = KeyId(key_id_of(public, stage))
                if key_id not in found:
                    found[key_id] = StageKey(
                        key_id=key_id, stage=stage, public=public, not_before_ms=0, revoked_at_ms=None
                    )
            if stage not in OPTIONAL and not any(key.stage == stage for key in found.values()):
                raise ConfigurationError(
                    f"no key of the {stage} is known: run `sluicegate keys new stage {stage}` on its host and put the "
                    f"file `stage-{stage}{PUBLIC}` that it makes into `{self.keys.path}`"
                )
        return stage_keys_content(sorted(found.values(), key=lambda key: (key.stage, key.key_id)))

    def directory_content(self, text: bytes) -> bytes:
        """The directory as it is published: as it stands, or in development with a key and a reply topic for every
        service that names none, and with the development issuer.

        Raises:
            InvalidDirectory: the text is no JSON object with a list of `entities`.
        """
        try:
            document = json.loads(text)
        except ValueError as error:
            raise InvalidDirectory((f"the directory is no JSON: {error}",)) from None
        if not isinstance(document, dict) or not isinstance(document.get("entities"), list):
            raise InvalidDirectory(("the directory needs a list `entities`",))
        if not self.development:
            return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        named = {each.get("service") for each in document.get("service_keys", []) if isinstance(each, Mapping)}
        services = [name for name in _services(document["entities"]) if name not in named]
        issuer_key = self.keys.issuer(ISSUER_KEY)
        kid = key_id_of(issuer_key, "issuer")
        whole = {
            **document,
            "service_keys": [
                *document.get("service_keys", []),
                *(key for name in services for key in self._service_keys(name)),
            ],
            "replies": _with_replies(document.get("replies", []), _services(document["entities"])),
            "issuers": [
                *document.get("issuers", []),
                {
                    "issuer": ISSUER,
                    "audience": TOKEN_AUDIENCE,
                    "principal_claim": "sub",
                    "binding": "act.sub",
                    "jwks": {"keys": [public_jwk(issuer_key, kid)]},
                },
            ],
        }
        return json.dumps(whole, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    def _service_keys(self, service: str) -> list[dict[str, object]]:
        self.keys.service(service)
        return [service_key_entry(self.keys, name) for name in reversed(self.keys.of(KeyKind.SERVICE, service))]


def service_key_entry(keys: KeyFolder, name: KeyName) -> dict[str, object]:
    """A service's key as the directory's `service_keys` list it."""
    public = keys.public(name)
    return {"kid": key_id_of(public, name.prefix), "service": name.owner, "jwk": public_jwk(public)}


def reply_name_of(service: str) -> str:
    """The reply topic that a service gets in development: its id, or its id made to fit, with a digest of it."""
    if REPLY_NAME.fullmatch(service):
        return service
    fitting = re.sub(r"[^a-z0-9]+", "-", service.lower())[:50].strip("-")
    return f"{fitting or 'app'}-{sha256(service.encode()).hexdigest()[:8]}"


def _with_replies(given: object, services: Sequence[str]) -> object:
    """An entry for every service that has none. What is no list of entries stays, and is refused with the rest."""
    if not isinstance(given, list):
        return given
    named = {each.get("service") for each in given if isinstance(each, Mapping)}
    return [*given, *({"service": name, "topic": reply_name_of(name)} for name in services if name not in named)]


def _services(entities: list[object]) -> list[str]:
    uids = [cast(Mapping[str, object], each).get("uid") for each in entities if isinstance(each, Mapping)]
    return sorted(
        str(uid["id"]) for uid in uids if isinstance(uid, Mapping) and uid.get("type") == "Service" and "id" in uid
    )


def signer_with(key: SigningKey, stage: str) -> Signer:
    """A stage's signer over a key, wherever that is held; its id is that of its public half.

    Raises:
        ConfigurationError: it is no Ed25519 key.
    """
    public = key.public_key()
    if not isinstance(public, Ed25519PublicKey):
        raise ConfigurationError(f"the {stage} must seal with an Ed25519 key; give it another")
    return Signer(key_id=KeyId(key_id_of(public, stage)), private=key)


def require_admitted(
    stage: str, signers: Sequence[Signer], admitted: Mapping[KeyId, StageKey], *, now_ms: int
) -> Signer:
    """The first of the stage's signers whose key the policy log admits.

    Raises:
        ConfigurationError: none is admitted, or all that are have been revoked.
    """
    for signer in signers:
        if _counts(admitted.get(signer.key_id), now_ms):
            return signer
    ids = ", ".join(f"`{signer.key_id}`" for signer in signers)
    if any(signer.key_id in admitted for signer in signers):
        raise ConfigurationError(
            f"the key {ids} of the {stage} is revoked: run `sluicegate keys new stage {stage}`, then "
            "`sluicegate publish`"
        )
    raise ConfigurationError(
        f"the key {ids} of the {stage} is not admitted: run `sluicegate publish` where the publisher's key is, with "
        f"the file `stage-{stage}{PUBLIC}` of this host in its key folder"
    )


def _counts(key: StageKey | None, now_ms: int) -> bool:
    return key is not None and (key.revoked_at_ms is None or key.revoked_at_ms > now_ms)
