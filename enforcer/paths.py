"""A document's dataset and the name of a piece go in, the field that is decided about comes out; the only place for it.

A name may be a path into nested data: `address.street`, `orders[3].iban`. Every place of a list is one field, written
`orders[].iban`, so that one decision, one entity of the directory and one line of the audit stand for all of them.
"""

import re
from typing import Final

from sluicegate.schemas.events import Document

_PLACE: Final = re.compile(r"\[[0-9]+\]")


def field_name(document: Document, name: str) -> str:
    """How decisions and the directory call a field: DATASET.FIELD, or DATASET.PATH with `[]` for a place of a list."""
    return f"{document.dataset}.{_PLACE.sub('[]', name) if '[' in name else name}"
