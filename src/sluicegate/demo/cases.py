"""The YAML files of `demo/` go in, rows to send come out: the only reader of the demo's data.

`requests.yaml` holds who asks what, `documents.yaml` the texts that are attached, `expected.yaml` what must come of
each, `mutations.yaml` and `candidate.yaml` edits of the policy.
"""

import json
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from sluicegate.schemas.errors import ConfigurationError
from sluicegate.schemas.events import Document, FieldText, Message, Parameters, RequestSubmitted, Role
from sluicegate.schemas.strict_json import JsonObject, loads_object

FOLDER: Final = Path("demo")
HELPDESK: Final = "helpdesk-app"
MODEL: Final = "smollm2"
ROW_ID = r"^[1-9][0-9]{0,8}[a-z]?$"

Text = Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, int) else value)]
"""A text that YAML may have taken for a number."""
RowId = Annotated[Text, Field(pattern=ROW_ID)]
T_ = TypeVar("T_")


class Attack(StrEnum):
    """What is done to a request on its way.

    `stolen-proof`: the headers of this request go out with another body.
    `forged-grants`: three allows, made up, go straight to the decisions topic; the request itself is never sent.
    `truncated`: the request is cut in half before it is sent.
    """

    STOLEN_PROOF = "stolen-proof"
    FORGED_GRANTS = "forged-grants"
    TRUNCATED = "truncated"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Piece(_Strict):
    """A piece of a document: text of one field."""

    field: str
    text: str


def _piece(value: object) -> object:
    """`salary: text` as YAML writes a piece."""
    if isinstance(value, dict) and len(value) == 1:
        ((field, text),) = value.items()
        return {"field": field, "text": text}
    return value


class Attachment(_Strict):
    """A document that requests attach; `id` is DATASET/NAME."""

    id: Annotated[str, Field(pattern=r"^[a-z]+/[A-Za-z0-9-]+$")]
    topics: tuple[str, ...] = ()
    pieces: tuple[Annotated[Piece, BeforeValidator(_piece)], ...]

    def document(self) -> Document:
        """The document as a request carries it."""
        dataset, _, name = self.id.partition("/")
        fields = tuple(FieldText(name=piece.field, text=piece.text) for piece in self.pieces)
        return Document(dataset=dataset, document_id=name, fields=fields)

    def is_about(self, question: str) -> bool:
        """Whether every word of one of the topics stands in the question."""
        words = set(_words(question))
        return any(words.issuperset(_words(topic)) for topic in self.topics)


class Row(_Strict):
    """One request of the demo; `requests.yaml` says what each key means."""

    row: RowId
    clock: Annotated[int, Field(ge=0, le=23)] | None = None
    who: str
    via: str = HELPDESK
    model: str = MODEL
    purpose: str
    documents: tuple[str, ...] = ()
    asks: str
    note: str = ""
    system: str | None = None
    max_tokens: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    attack: Attack | None = None

    @property
    def request_id(self) -> str:
        """The id under which it stands in the audit."""
        return f"demo-{self.row}"

    @property
    def by_service(self) -> bool:
        """Whether a service asks for itself."""
        return self.who == self.via

    @property
    def question(self) -> str:
        """The last line of what is asked: as much as a table shows."""
        return self.asks.strip().rpartition("\n")[2]


class Limit(_Strict):
    """A parameter granted tighter than asked."""

    name: str
    asked: Text
    granted: Text
    policies: tuple[str, ...] = ()


class Due(_Strict):
    """A merged obligation: its value as canonical JSON, and the policies it came from."""

    value: str
    policies: tuple[str, ...]


class Expected(_Strict):
    """What must come of one row. `policies` determined the verdict, `reads` each field's; `holds` and `holds_not` are
    strings of the released answer, `answer` is what it was when it was recorded.
    """

    row: RowId
    verdict: Literal["ALLOW", "DENY", "FORGED"]
    code: str
    policies: tuple[str, ...] = ()
    obligations: Mapping[str, Due] = {}
    reads: Mapping[str, tuple[str, ...]] = {}
    withheld: tuple[str, ...] = ()
    clamps: tuple[Limit, ...] = ()
    aliases: Mapping[str, int] = {}
    redacted: tuple[str, ...] = ()
    unsupported: int = 0
    reason: str | None = None
    answer: str | None = None
    holds: tuple[str, ...] = ()
    holds_not: tuple[str, ...] = ()


class Edit(_Strict):
    """One line of one bundle file put in place of another. `row` and `also` must change by it, and no other row."""

    file: str
    find: str
    replace: str
    row: RowId | None = None
    also: tuple[RowId, ...] = ()

    def applied(self, content: bytes) -> dict[str, str]:
        """The files of a bundle, by path, after the edit.

        Raises:
            ConfigurationError: the line does not stand in the file exactly once.
        """
        files: dict[str, str] = json.loads(content)
        if files.get(self.file, "").count(self.find) != 1:
            raise ConfigurationError(f"`{self.file}` of the bundle does not hold `{self.find}` once; mend the edit")
        return {**files, self.file: files[self.file].replace(self.find, self.replace)}


class Day(_Strict):
    """The whole demo: rows in order, and the documents they attach by id."""

    rows: tuple[Row, ...]
    documents: Mapping[str, Attachment]

    def request(self, row: Row, *, request_id: str | None = None) -> RequestSubmitted:
        """The request of a row."""
        system = () if row.system is None else (Message(role=Role.SYSTEM, content=row.system),)
        return RequestSubmitted(
            request_id=row.request_id if request_id is None else request_id,
            model=row.model,
            purpose=row.purpose,
            messages=(*system, Message(role=Role.USER, content=row.asks)),
            documents=tuple(self.documents[each].document() for each in row.documents),
            parameters=Parameters(max_tokens=row.max_tokens, seed=row.seed, stop=row.stop),
        )


class People:
    """Short names of the directory's users: `ana` for `ana.support`."""

    def __init__(self, directory: JsonObject) -> None:
        entities = directory.get("entities")
        uids = [each.get("uid") for each in entities if isinstance(each, dict)] if isinstance(entities, list) else []
        self.users: Final = tuple(str(uid["id"]) for uid in uids if isinstance(uid, dict) and uid.get("type") == "User")
        self.services: Final = tuple(
            str(uid["id"]) for uid in uids if isinstance(uid, dict) and uid.get("type") == "Service"
        )

    def resolve(self, name: str) -> str:
        """The one user whose id begins with `name` and a dot; any other name stays as it is, for the gate to refuse."""
        found = [user for user in self.users if user == name or user.startswith(f"{name}.")]
        return found[0] if len(found) == 1 else name

    def short(self, user: str) -> str:
        """`ana` for `ana.support`, where that is enough to tell people apart."""
        name = user.partition(".")[0]
        return name if self.resolve(name) == user else user


def read_people(path: Path) -> People:
    """The people of a directory file.

    Raises:
        ConfigurationError: it cannot be read.
    """
    try:
        return People(loads_object(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"`{path}` is no directory: {error}; mend the file") from None


def read_day(folder: Path) -> Day:
    """The rows and documents in a folder.

    Raises:
        ConfigurationError: a file is missing or wrong, or a row names a document that is not there.
    """
    attachments = _read(folder / "documents.yaml", TypeAdapter(tuple[Attachment, ...]))
    rows = _read(folder / "requests.yaml", TypeAdapter(tuple[Row, ...]))
    documents = {each.id: each for each in attachments}
    if len({row.row for row in rows}) < len(rows):
        raise ConfigurationError(f"`{folder / 'requests.yaml'}` numbers two rows alike; give each its own number")
    for row in rows:
        for name in row.documents:
            if name not in documents:
                raise ConfigurationError(f"row {row.row} attaches `{name}`, which is not in `documents.yaml`; add it")
    return Day(rows=rows, documents=documents)


def read_expected(folder: Path) -> dict[str, Expected]:
    """What must come of each row, by row.

    Raises:
        ConfigurationError: the file is missing or wrong.
    """
    return {each.row: each for each in _read(folder / "expected.yaml", TypeAdapter(tuple[Expected, ...]))}


def read_candidate(folder: Path) -> Edit:
    """The edit that the replay is shown on.

    Raises:
        ConfigurationError: the file is missing or wrong.
    """
    return _read(folder / "candidate.yaml", TypeAdapter(Edit))


def read_mutations(folder: Path) -> tuple[Edit, ...]:
    """The edits that change one row each.

    Raises:
        ConfigurationError: the file is missing or wrong.
    """
    return _read(folder / "mutations.yaml", TypeAdapter(tuple[Edit, ...]))


def _read(path: Path, form: TypeAdapter[T_]) -> T_:
    try:
        return form.validate_python(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        reason = (error.strerror or "unknown").lower()
        raise ConfigurationError(f"`{path}` cannot be read ({reason}): run this where the `demo` folder is") from None
    except yaml.YAMLError as error:
        raise ConfigurationError(f"`{path}` is no YAML: {' '.join(str(error).split())}; correct it") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(each) for each in first["loc"])
        raise ConfigurationError(f"`{path}` at `{place}`: {first['msg'].lower()}; correct it") from None


def _words(text: str) -> list[str]:
    plain = "".join(
        letter if letter.isalnum() or letter == "-" else " " for letter in text.casefold().replace("'s", "")
    )
    return plain.split()
