"""The content of a KEYS version: which keys seal for which stage, and from when until when; read and written only here.

`{"stages": [{"key_id", "stage", "public", "not_before_ms", "revoked_at_ms"}]}`; `public` is base64url of the raw
Ed25519 key, times are milliseconds of T, `revoked_at_ms` may be null.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from sluicegate.enforcer.credentials import is_name
from sluicegate.enforcer.seal import StageKey
from sluicegate.schemas.ids import KeyId
from sluicegate.schemas.strict_json import NotStrict, decode_base64url, encode_base64url, loads_object

STAGES: Final = frozenset({"enforcer", "runner", "redactor", "shadow"})
OPTIONAL: Final = frozenset({"shadow"})
"""Stages that an installation does well without."""
KEYS_MAX: Final = 1024
PUBLIC_KEY_BYTES: Final = 32
TIME_MS_MAX: Final = 1 << 50
_MEMBERS: Final = {"key_id", "stage", "public", "not_before_ms", "revoked_at_ms"}


class InvalidKeys(ValueError):
    """The content is no list of stage keys, or takes back what an earlier version said."""


def stage_keys_content(keys: Iterable[StageKey]) -> bytes:
    """The content that carries these keys."""
    stages = [
        {
            "key_id": key.key_id,
            "stage": key.stage,
            "public": encode_base64url(key.public.public_bytes_raw()),
            "not_before_ms": key.not_before_ms,
            "revoked_at_ms": key.revoked_at_ms,
        }
        for key in keys
    ]
    return json.dumps({"stages": stages}, sort_keys=True, separators=(",", ":")).encode("utf-8")


def read_stage_keys(content: bytes) -> Mapping[KeyId, StageKey]:
    """The keys of every stage. One key, by id or by material, belongs to one stage.

    Raises:
        InvalidKeys: the content does not have the form above.
    """
    try:
        document = loads_object(content)
    except NotStrict:
        raise InvalidKeys("the content is no strict JSON object") from None
    stages = document.get("stages")
    if set(document) != {"stages"} or not isinstance(stages, list) or not 0 < len(stages) <= KEYS_MAX:
        raise InvalidKeys(f"the content needs `stages` with 1 to {KEYS_MAX} keys")
    keys = [_read(entry, f"`stages[{index}]`") for index, entry in enumerate(stages)]
    if len({key.key_id for key in keys}) != len(keys) or len({key.public.public_bytes_raw() for key in keys}) != len(
        keys
    ):
        raise InvalidKeys("a key is listed twice")
    return {key.key_id: key for key in keys}


def _read(entry: object, where: str) -> StageKey:
    if not isinstance(entry, dict) or set(entry) != _MEMBERS:
        raise InvalidKeys(
            f"{where}: must have exactly the members {', '.join(f'`{name}`' for name in sorted(_MEMBERS))}"
        )
    key_id, stage, public = entry["key_id"], entry["stage"], entry["public"]
    not_before_ms, revoked_at_ms = entry["not_before_ms"], entry["revoked_at_ms"]
    if not isinstance(key_id, str) or not is_name(key_id):
        raise InvalidKeys(f"{where}: `key_id` must be a printable string")
    if not isinstance(stage, str) or stage not in STAGES:
        raise InvalidKeys(f"{where}: `stage` must be one of {', '.join(f'`{name}`' for name in sorted(STAGES))}")
    if not _is_time(not_before_ms) or not (revoked_at_ms is None or _is_time(revoked_at_ms)):
        raise InvalidKeys(f"{where}: times must be whole milliseconds")
    try:
        raw = decode_base64url(public.encode("utf-8")) if isinstance(public, str) else b""
    except NotStrict:
        raw = b""
    if len(raw) != PUBLIC_KEY_BYTES:
        raise InvalidKeys(f"{where}: `public` must be {PUBLIC_KEY_BYTES} bytes in unpadded base64url")
    return StageKey(
        key_id=KeyId(key_id),
        stage=stage,
        public=Ed25519PublicKey.from_public_bytes(raw),
        not_before_ms=not_before_ms,
        revoked_at_ms=revoked_at_ms,
    )


def _is_time(value: object) -> bool:
    return type(value) is int and 0 <= value < TIME_MS_MAX


def check_succession(old: Mapping[KeyId, StageKey], new: Mapping[KeyId, StageKey]) -> None:
    """Holds a new version to what the old one said: a key leaves by `revoked_at_ms`, never by omission.

    A key that vanished would void every record that it sealed, and the logs would no longer read back.

    Raises:
        InvalidKeys: a key is gone, became another, or its revocation was taken back or put off.
    """
    for key_id, before in old.items():
        after = new.get(key_id)
        if after is None:
            raise InvalidKeys("a key of the version before is missing; keep it and set its `revoked_at_ms`")
        same = (before.stage, before.not_before_ms) == (after.stage, after.not_before_ms)
        if not same or before.public.public_bytes_raw() != after.public.public_bytes_raw():
            raise InvalidKeys("a key of the version before became another; give a new key a new `key_id`")
        if before.revoked_at_ms is not None and (
            after.revoked_at_ms is None or after.revoked_at_ms > before.revoked_at_ms
        ):
            raise InvalidKeys("a revocation cannot be taken back or put off; admit a new key")
