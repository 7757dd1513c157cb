"""What one machine's installation trusts: its key folder goes in; root of trust, stage keys and a directory that knows
the development keys come out.

A real deployment keeps these keys in other hands; the events and their checks are the same.
"""

import json
from collections.abc import Mapping
from typing import Final, cast

from sluicegate.enforcer.seal import Signer, StageKey
from sluicegate.enforcer.stage_keys import STAGES, stage_keys_content
from sluicegate.enforcer.trust import Domain, digest_of, make_root
from sluicegate.home import Home
from sluicegate.keys import KeyFolder, key_id_of, public_jwk, signer_of
from sluicegate.schemas.errors import ConfigurationError, InvalidDirectory
from sluicegate.schemas.ids import Digest, KeyId
from sluicegate.settings import Settings

ISSUER: Final = "urn:sluicegate:development-issuer"
ISSUER_KEY: Final = "development"
TOKEN_AUDIENCE: Final = "sluicegate"  # noqa: S105 - a name, not a secret
EXPIRES_MS: Final = 4_102_444_800_000
"""2100-01-01: the keys of one machine are replaced by hand; expiry with alarms comes with `policy sign`."""


class Installation:
    """The keys and the root of trust of one home. Each stage process reads its own private key and no other's."""

    def __init__(self, settings: Settings, home: Home) -> None:
        self.domain = Domain(env=settings.env, tenant=settings.tenant)
        self.keys = KeyFolder(home.keys)
        self._root_file = home.keys / "root.json"

    def root_metadata(self) -> bytes:
        """The signed root, made at the first call.

        Raises:
            ConfigurationError: it cannot be read or written.
        """
        try:
            return self._root_file.read_bytes()
        except FileNotFoundError:
            root, publisher = signer_of(self.keys.root()), signer_of(self.keys.publisher())
            made = make_root(
                domain=self.domain,
                version=1,
                expires_ms=EXPIRES_MS,
                root_keys=(root.public_key,),
                root_threshold=1,
                publisher_keys=(publisher.public_key,),
                publisher_threshold=1,
                signers=(root,),
            )
            self._root_file.write_bytes(made)
            return made
        except OSError as error:
            raise ConfigurationError(f"`{self._root_file}` cannot be read: {error.strerror}; mend its mode") from None

    def root_digest(self) -> Digest:
        """SHA-256 of the root that every stage of this home trusts."""
        return digest_of(self.root_metadata())

    def stage_signer(self, stage: str) -> Signer:
        """The stage's private key with its id."""
        private = self.keys.stage(stage)
        return Signer(key_id=KeyId(key_id_of(private, stage)), private=private)

    def stage_keys(self) -> bytes:
        """Content of the KEYS version that admits the key of every stage of this home."""
        signers = {stage: self.stage_signer(stage) for stage in sorted(STAGES)}
        return stage_keys_content(
            StageKey(
                key_id=signer.key_id,
                stage=stage,
                public=signer.private.public_key(),
                not_before_ms=0,
                revoked_at_ms=None,
            )
            for stage, signer in signers.items()
        )

    def directory_content(self, text: bytes) -> bytes:
        """The directory with a development key for every service that names none, and the development issuer.

        Raises:
            InvalidDirectory: the text is no JSON object with a list of `entities`.
        """
        try:
            document = json.loads(text)
        except ValueError as error:
            raise InvalidDirectory((f"the directory is no JSON: {error}",)) from None
        if not isinstance(document, dict) or not isinstance(document.get("entities"), list):
            raise InvalidDirectory(("the directory needs a list `entities`",))
        named = {each.get("service") for each in document.get("service_keys", []) if isinstance(each, Mapping)}
        services = [name for name in _services(document["entities"]) if name not in named]
        issuer_key = self.keys.issuer(ISSUER_KEY)
        kid = key_id_of(issuer_key, "issuer")
        whole = {
            **document,
            "service_keys": [*document.get("service_keys", []), *(self._service_key(name) for name in services)],
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

    def _service_key(self, service: str) -> dict[str, object]:
        key = self.keys.service(service)
        return {"kid": key_id_of(key, "service"), "service": service, "jwk": public_jwk(key)}


def _services(entities: list[object]) -> list[str]:
    uids = [cast(Mapping[str, object], each).get("uid") for each in entities if isinstance(each, Mapping)]
    return sorted(
        str(uid["id"]) for uid in uids if isinstance(uid, Mapping) and uid.get("type") == "Service" and "id" in uid
    )
