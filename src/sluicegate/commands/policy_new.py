"""`sluicegate policy new`: a small working bundle with a directory and a test case, written into an empty folder."""

import re
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

import click

from sluicegate.schemas.errors import ConfigurationError

STARTER: Final = files("sluicegate.policy") / "starter"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_PLACEHOLDER: Final = "name: starter\n"


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def new(folder: Path) -> int:
    """Write a small working bundle, a directory and test cases into FOLDER, which must be empty or not there yet."""
    name = folder.resolve().name.lower()
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigurationError(f"`{folder}` is not an empty folder; name another")
        for path, text in sorted(starter(name if _NAME.fullmatch(name) else "my-policies").items()):
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
            click.echo(f"  {target}")
    except OSError as error:
        raise ConfigurationError(f"`{folder}` cannot be written: {error.strerror}; name another folder") from None
    click.echo(f"  next: sluicegate policy check --bundle {folder}")
    return 0


def starter(name: str) -> dict[str, str]:
    """The files of the starting bundle under this name, and `directory.json` beside them, by path."""
    found = dict(_texts(STARTER, ""))
    found["bundle.yaml"] = found["bundle.yaml"].replace(_PLACEHOLDER, f"name: {name}\n")
    return found


def _texts(folder: Traversable, path: str) -> Iterator[tuple[str, str]]:
    for each in folder.iterdir():
        if each.is_dir():
            yield from _texts(each, f"{path}{each.name}/")
        else:
            yield f"{path}{each.name}", each.read_text(encoding="utf-8")
