"""A record of a reply topic goes in, the genuine release that it copies comes out: the only place that believes one.

Checks, the first failure drops the record and counts it: 1 it decodes; 2 the redactor's seal covers these bytes, for
this partition of `releases`, this environment, tenant and epoch (where the broker's rights are trusted instead, this
check is left out); 3 it is for this service, or for nobody on the topic of refusals; 4 it was not seen before.
"""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from sluicegate.client.config import ClientConfig, Trust
from sluicegate.enforcer.seal import StageKey, Verifier, Void, verify_copy
from sluicegate.enforcer.stage_keys import InvalidKeys, read_stage_keys
from sluicegate.schemas import codec
from sluicegate.schemas.errors import CodecError, ConfigurationError
from sluicegate.schemas.events import ReleaseMade
from sluicegate.schemas.ids import KeyId, entity_uid
from sluicegate.schemas.records import Record
from sluicegate.streams.topology import REDACTOR

log = logging.getLogger(__name__)
SEEN_MAX: Final = 65_536
KEY_FILE_BYTES_MAX: Final = 1024 * 1024
KEY_FILE_EVERY_S: Final = 1.0
Dropped = Literal["unreadable", "unverified", "foreign"]
Kind = Literal["genuine", "repeated", "unreadable", "unverified", "foreign"]


class KeyFile:
    """The redactor's public keys in a file, read again when it changes, so that a new key needs no restart."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._looked_at = time.monotonic()
        self._changed_ns = 0
        self._keys = self._read()

    def keys(self) -> Mapping[KeyId, StageKey]:
        """The keys now. A file that became unreadable changes nothing but the log."""
        now = time.monotonic()
        if now - self._looked_at >= KEY_FILE_EVERY_S:
            self._looked_at = now
            try:
                if self._path.stat().st_mtime_ns != self._changed_ns:
                    self._keys = self._read()
            except (OSError, ConfigurationError) as error:
                log.warning("the file of the redactor's keys cannot be read", extra={"why": type(error).__name__})
        return self._keys

    def _read(self) -> Mapping[KeyId, StageKey]:
        try:
            self._changed_ns = self._path.stat().st_mtime_ns
            with self._path.open("rb") as file:
                content = file.read(KEY_FILE_BYTES_MAX)
            return read_stage_keys(content)
        except OSError as error:
            raise ConfigurationError(
                f"`{self._path}` cannot be read ({error.strerror}); write it with `sluicegate keys list --public`"
            ) from None
        except InvalidKeys as error:
            raise ConfigurationError(f"`{self._path}` holds no stage keys: {error}") from None


@dataclass(slots=True, kw_only=True)
class Counts:
    """What the topics held: `genuine` releases, `repeated` ones, and what was dropped for which check."""

    genuine: int = 0
    repeated: int = 0
    unreadable: int = 0
    unverified: int = 0
    foreign: int = 0

    def add(self, kind: Kind) -> None:
        """One more of this kind."""
        setattr(self, kind, getattr(self, kind) + 1)


class Copies:
    """Reads the reply topic of one service and the refusals of its tenant."""

    def __init__(self, config: ClientConfig) -> None:
        self.counts = Counts()
        self._config = config
        self._topology = config.topology()
        self._actor = entity_uid("Service", config.service)
        self._keys = _keys_of(config.trust)
        self._verifiers: dict[int, Verifier] = {}
        self._seen: OrderedDict[str, None] = OrderedDict()

    def read(self, record: Record, *, before: bool = False) -> ReleaseMade | None:
        """The release that the record copies; None where it is not to be believed, or was here already.

        `before`: the record is read back, so it is no repeat, and nothing of it is counted again.
        """
        release = self._believed(record)
        if before:
            return release if isinstance(release, ReleaseMade) else None
        # 4
        kind: Kind
        if isinstance(release, ReleaseMade):
            kind = "repeated" if self._seen_before(release) else "genuine"
        else:
            kind = release
        self.counts.add(kind)
        return release if isinstance(release, ReleaseMade) and kind == "genuine" else None

    def _believed(self, record: Record) -> ReleaseMade | Dropped:
        # 1
        try:
            release = codec.decode(record.value, ReleaseMade, ids=self._config.schema_ids)
        except CodecError:
            return "unreadable"
        # 2
        if self._keys is not None and isinstance(verify_copy(self._verifier(record.partition), record), Void):
            return "unverified"
        # 3
        nobody = record.topic == self._topology.refusals
        return release if release.actor == (None if nobody else self._actor) else "foreign"

    def _seen_before(self, release: ReleaseMade) -> bool:
        """As far as memory reaches: delivery is at least once."""
        seen = release.release_id in self._seen
        self._seen[release.release_id] = None
        self._seen.move_to_end(release.release_id)
        if len(self._seen) > SEEN_MAX:
            self._seen.popitem(last=False)
        return seen

    def _verifier(self, partition: int) -> Verifier:
        if partition not in self._verifiers:
            assert self._keys is not None
            config = self._config
            place = self._topology.place(REDACTOR, env=config.env, epoch=config.epoch, partition=partition)
            self._verifiers[partition] = Verifier(place, self._keys)
        return self._verifiers[partition]


def _keys_of(trust: Path | Mapping[KeyId, StageKey] | Trust) -> Callable[[], Mapping[KeyId, StageKey]] | None:
    match trust:
        case Trust():
            return None
        case Path():
            return KeyFile(trust).keys
        case _:
            return lambda: trust
