"""A service's key and a request go in, the proved record comes out (DESIGN 3); the key may be in other hands."""

import asyncio
import secrets
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sluicegate.enforcer.seal import SigningKey
from sluicegate.keys import PrivateKey, key_id_of, load_key
from sluicegate.proof import make_proof, proof_headers
from sluicegate.schemas.errors import ConfigurationError
from sluicegate.schemas.records import Headers, Unsent

ProofKey = PrivateKey | SigningKey


def read_key(key: Path | ProofKey) -> ProofKey:
    """The key itself, from its file where a path is given.

    Raises:
        ConfigurationError: there is no such file, others can read it, or it holds no key for proofs.
    """
    if not isinstance(key, Path):
        return key
    try:
        return load_key(key)
    except FileNotFoundError:
        raise ConfigurationError(f"there is no key `{key}`; make one with `sluicegate keys new service NAME`") from None


class Prover:
    """Proves every record of one service: a new proof for each send, for a repeated one too."""

    def __init__(
        self, key: ProofKey, *, kid: str | None, service: str, audience: str, now_ms: Callable[[], int]
    ) -> None:
        self._key = key
        self._kid = kid or key_id_of(key.public_key(), "service")
        self._service = service
        self._audience = audience
        self._now_ms = now_ms

    async def prove(self, *, key: bytes, value: bytes, token: str | None, headers: Headers) -> Unsent:
        """The record of the request `value` on behalf of the principal `key`, with `headers` beside the proof's.

        Raises:
            Unavailable: the key is out of reach for now.
        """
        if isinstance(self._key, Ed25519PrivateKey | EllipticCurvePrivateKey):
            proof = self._make(key, value, token)
        else:  # whoever holds it may be a network away
            proof = await asyncio.to_thread(self._make, key, value, token)
        return Unsent(key=key, value=value, headers=(*proof_headers(proof, token), *headers))

    def _make(self, key: bytes, value: bytes, token: str | None) -> str:
        return make_proof(
            self._key,
            kid=self._kid,
            service=self._service,
            audience=self._audience,
            key=key,
            value=value,
            now_s=self._now_ms() // 1000,
            jti=secrets.token_urlsafe(16),
            token=token,
        )
