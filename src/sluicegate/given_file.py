"""The path of a file that somebody named goes in, its bytes come out, and never more of them than are wanted."""

from pathlib import Path

from sluicegate.schemas.errors import ConfigurationError


def read_given(path: Path, bytes_max: int) -> bytes:
    """The content of the file.

    Raises:
        ConfigurationError: it cannot be read, or holds more than `bytes_max` bytes.
    """
    try:
        with path.open("rb") as file:
            data = file.read(bytes_max + 1)
    except OSError as error:
        raise ConfigurationError(f"`{path}` cannot be read: {error.strerror}; name another file") from None
    if len(data) > bytes_max:
        raise ConfigurationError(f"`{path}` is over {bytes_max} bytes; name another file")
    return data
