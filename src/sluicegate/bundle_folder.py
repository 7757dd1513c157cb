"""A folder goes in, the content of the bundle in it comes out: the only place that reads policy files from disk."""

from pathlib import Path
from typing import Final

from sluicegate.enforcer.bundle import belongs_to_bundle, bundle_content
from sluicegate.schemas.errors import ConfigurationError, InvalidBundle, Problem

FILE_BYTES_MAX: Final = 1_000_000
FILES_MAX: Final = 500


def read_bundle(folder: Path) -> bytes:
    """The content of the bundle in a folder; files that belong to no bundle are left out.

    Raises:
        ConfigurationError: the folder or a file cannot be read.
        InvalidBundle: a file is not UTF-8, too large, or there are too many.
    """
    if not folder.is_dir():
        raise ConfigurationError(f"there is no bundle folder `{folder}`; name one with `--bundle`")
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    names = [name for name in names if belongs_to_bundle(name)]
    if len(names) > FILES_MAX:
        text = f"`{folder}` holds {len(names)} files, over the limit of {FILES_MAX}; merge some"
        raise InvalidBundle((Problem("too-many-files", text),))
    files = {}
    for name in names:
        try:
            data = (folder / name).read_bytes()
        except OSError as error:
            raise ConfigurationError(f"`{folder / name}` cannot be read: {error.strerror}") from None
        if len(data) > FILE_BYTES_MAX:
            text = f"{len(data)} bytes, over the limit of {FILE_BYTES_MAX}; cut it down"
            raise InvalidBundle((Problem("file-too-large", text, file=name),))
        try:
            files[name] = data.decode("utf-8")
        except UnicodeDecodeError:
            problem = Problem("not-utf-8", "is not UTF-8; save it as UTF-8", file=name)
            raise InvalidBundle((problem,)) from None
    return bundle_content(files)
