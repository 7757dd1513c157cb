"""A record of a log: as it was read (`Record`) and as it is to be appended (`Unsent`)."""

from dataclasses import dataclass

Headers = tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One record as the broker returned it. `timestamp_ms` is the broker's append time where it keeps one."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()

    def header(self, name: str) -> bytes | None:
        """The value of the only header called `name`; None where there is none or more than one."""
        found = [value for header, value in self.headers if header == name]
        return found[0] if len(found) == 1 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsent:
    """One record on its way to a log."""

    key: bytes | None
    value: bytes
    headers: Headers = ()

    def size_bytes(self) -> int:
        """Upper bound of the record's share of a batch, bytes."""
        headers = sum(len(name) + len(value) + 16 for name, value in self.headers)
        return len(self.key or b"") + len(self.value) + headers + 64
