"""The content of a bundle goes in, the loaded bundle comes out: once a process, however often a log is folded."""

from functools import lru_cache
from typing import Final

from sluicegate.enforcer.bundle import Bundle, load_bundle
from sluicegate.enforcer.pairs import Loaders

KEPT: Final = 16


@lru_cache(maxsize=KEPT)
def loaded(content: bytes) -> Bundle:
    """The bundle, as `load_bundle` reads it.

    Raises:
        InvalidBundle: it is not valid.
    """
    return load_bundle(content)


LOADERS: Final = Loaders(bundle=loaded)
