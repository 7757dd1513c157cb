"""YAML texts go in, requests with what policy must say of them come out; the only reader of test cases.

A case asks as a producer asks; `docs/policies.md` says what each key means. A key that is not known is an error.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from sluicegate.enforcer.directory import split_uid
from sluicegate.enforcer.vocabulary import BadFile, lines_of, read_yaml
from sluicegate.policy.situation import Put, put_of
from sluicegate.schemas.errors import InvalidBundle, Problem
from sluicegate.schemas.events import Document, FieldText, Message, Parameters, RequestSubmitted, Role
from sluicegate.schemas.ids import entity_uid

CASES_MAX: Final = 10_000
NAME_CHARACTERS_MAX: Final = 200
CODE: Final = "test-cases"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _sequence(value: object) -> object:
    """YAML's lists, where a tuple is kept."""
    return tuple(value) if isinstance(value, list) else value


def _texts(value: object) -> object:
    return tuple(sorted(value)) if isinstance(value, list) and all(isinstance(each, str) for each in value) else value


def _number_as_text(value: object) -> object:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _user_message(value: object) -> object:
    """A message that is only a text is the user's."""
    return {"role": "user", "content": value} if isinstance(value, str) else value


def _piece(value: object) -> object:
    """`phone: text` as a piece of a document is written."""
    if isinstance(value, dict) and len(value) == 1:
        ((name, text),) = value.items()
        return {"name": name, "text": text}
    return value


def _time_ms(value: object) -> object:
    """An ISO time with a zone as milliseconds since 1970-01-01T00:00:00Z."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return value
    if isinstance(value, datetime) and value.tzinfo is not None:
        return int(value.astimezone(UTC).timestamp() * 1000)
    return value


Names = Annotated[tuple[str, ...], BeforeValidator(_texts)]
"""Names of which the order says nothing: kept sorted."""
Time = Annotated[int, BeforeValidator(_time_ms), Field(ge=0)]
AsText = Annotated[str, BeforeValidator(_number_as_text)]


class _Piece(_Strict):
    name: str
    text: str


class _Document(_Strict):
    dataset: str
    id: str
    fields: Annotated[tuple[Annotated[_Piece, BeforeValidator(_piece)], ...], BeforeValidator(_sequence)]

    def document(self) -> Document:
        fields = tuple(FieldText(name=each.name, text=each.text) for each in self.fields)
        return Document(dataset=self.dataset, document_id=self.id, fields=fields)


class _Message(_Strict):
    role: Literal["system", "user", "assistant"]
    content: str


class _Parameters(_Strict):
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: Annotated[tuple[str, ...], BeforeValidator(_sequence)] = ()
    stream: bool = False


class _Request(_Strict):
    model: str | None = None
    purpose: str
    messages: Annotated[tuple[Annotated[_Message, BeforeValidator(_user_message)], ...], BeforeValidator(_sequence)]
    documents: Annotated[tuple[str | _Document, ...], BeforeValidator(_sequence)] = ()
    tools: Annotated[tuple[str, ...], BeforeValidator(_sequence)] = ()
    parameters: _Parameters = _Parameters()


class Due(_Strict):
    """A merged obligation as it must be: `value` as YAML says it, `sources` the policies it came from (`from`)."""

    value: object
    sources: Names = Field(alias="from")


class Limit(_Strict):
    """A parameter that must be granted tighter than asked."""

    asked: AsText
    granted: AsText
    sources: Names = Field(alias="from", default=())


class Said(_Strict):
    """A message as the model must read it."""

    role: Literal["system", "user", "assistant"]
    text: str


class Expected(_Strict):
    """What policy must say: None is not looked at, all else is compared whole, `record` only as far as it goes.

    `fields`: for each field named, the policies that let it in or keep it out; empty where none matches.
    """

    verdict: Literal["allow", "deny"]
    code: str | None = None
    reason: str | None = None
    policies: Names | None = None
    obligations: Mapping[str, Due] | None = None
    admitted: Names | None = None
    withheld: Names | None = None
    fields: Mapping[str, Names] | None = None
    clamps: Mapping[str, Limit] | None = None
    prompt: Annotated[tuple[Said, ...] | None, BeforeValidator(_sequence)] = None
    record: Mapping[str, object] | None = None


class _Uid(_Strict):
    type: str
    id: Annotated[str, Field(min_length=1)]


class _Entity(_Strict):
    """An entity as `directory.json` has it."""

    uid: _Uid
    attrs: Mapping[str, object] = {}
    parents: Annotated[tuple[_Uid, ...], BeforeValidator(_sequence)] = ()


class _Asked(_Strict):
    who: str
    via: str | None = None
    at: Time | None = None
    directory: Annotated[tuple[_Entity, ...], BeforeValidator(_sequence)] = ()
    request: _Request


class _Case(_Asked):
    name: Annotated[str, Field(min_length=1, max_length=NAME_CHARACTERS_MAX)]
    expect: Expected


class _Defaults(_Strict):
    via: str | None = None
    at: Time | None = None
    model: str | None = None


class _File(_Strict):
    defaults: _Defaults = _Defaults()
    documents: Mapping[str, _Document] = {}
    cases: Annotated[tuple[_Case, ...], BeforeValidator(_sequence), Field(min_length=1)]


class _Question(_Asked):
    """A file that asks one thing. What a case says besides is left aside, so that a case can be asked about too."""

    name: str = ""
    expect: Expected | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Who asks what, when: principal and actor (Cedar type and id each), event time, and the request.

    `put`: entities that stand otherwise than in the directory.
    """

    principal: tuple[str, str]
    actor: tuple[str, str]
    time_ms: int
    request: RequestSubmitted
    put: Put = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A request and what policy must say of it; `file` and `line` are where it is written."""

    name: str
    file: str
    line: int
    asked: Asked
    expected: Expected

    def place(self) -> str:
        """Where it stands, as `tests/access.yaml:4`."""
        return f"{self.file}:{self.line}"


def read_cases(files: Mapping[str, str]) -> tuple[Case, ...]:
    """The cases of all files, by path, in order.

    Raises:
        InvalidBundle: with a `Problem` for each thing to mend, its file and line.
    """
    found: list[Case] = []
    problems: list[Problem] = []
    for path in sorted(files):
        try:
            found += _cases(path, files[path])
        except InvalidBundle as error:
            problems += [problem for problem in error.problems if isinstance(problem, Problem)]
    taken: dict[str, Case] = {}
    for case in found:
        if case.name in taken:
            text = f"the name `{case.name}` is taken by {taken[case.name].place()}; give each case its own"
            problems.append(Problem(CODE, text, file=case.file, line=case.line))
        taken.setdefault(case.name, case)
    if len(found) > CASES_MAX:
        problems.append(Problem(CODE, f"{len(found)} cases are over the limit of {CASES_MAX}; merge some"))
    if problems:
        raise InvalidBundle(tuple(problems))
    return tuple(found)


def read_question(path: str, text: str) -> Asked:
    """What one file asks: the keys of a case (`who`, `via`, `at`, `request`); `name` and `expect` are left aside.

    Raises:
        InvalidBundle: with a `Problem` for each thing to mend, its file and line.
    """
    document, lines = _document(path, text)
    try:
        form = _Question.model_validate(document)
    except ValidationError as error:
        raise InvalidBundle(tuple(_problems(path, lines, error))) from None
    asked = _asked(form, _File.model_construct(cases=()), "r1")
    if isinstance(asked, str):
        raise InvalidBundle((Problem(CODE, asked, file=path, line=1),))
    return asked


def _cases(path: str, text: str) -> Iterator[Case]:
    document, lines = _document(path, text)
    try:
        form = _File.model_validate(document)
    except ValidationError as error:
        raise InvalidBundle(tuple(_problems(path, lines, error))) from None
    for index, each in enumerate(form.cases):
        line = lines["cases", str(index)]
        asked = _asked(each, form, f"case-{index + 1}")
        if isinstance(asked, str):
            raise InvalidBundle((Problem(CODE, asked, file=path, line=line),))
        yield Case(name=each.name, file=path, line=line, asked=asked, expected=each.expect)


def _document(path: str, text: str) -> tuple[dict[str, object], Mapping[tuple[str, ...], int]]:
    try:
        return read_yaml(text), lines_of(text)
    except BadFile as error:
        raise InvalidBundle((Problem(CODE, str(error), file=path, line=error.line),)) from None


def _problems(path: str, lines: Mapping[tuple[str, ...], int], error: ValidationError) -> Iterator[Problem]:
    """What a form does not take, at the line of the value, or of the nearest one around it. Values are not repeated."""
    for each in error.errors(include_input=False, include_url=False, include_context=False):
        keys = [str(key) for key in each["loc"]]
        # A union names its members in the place; only what the file holds counts.
        place: tuple[str, ...] = ()
        for key in keys:
            if (*place, key) in lines:
                place = (*place, key)
        name = keys[-1] if keys else "the file"
        match each["type"]:
            case "extra_forbidden":
                text = f"unknown key `{name}`; remove it"
            case "missing":
                text = f"key `{name}` is missing; add it"
            case _ if name == "at":
                text = "`at` is no time with a zone; write it as `2026-11-20T12:00:00Z`"
            case _:
                text = f"`{'.'.join(place) or name}`: {each['msg'][:1].lower()}{each['msg'][1:]}; correct it"
        yield Problem(CODE, text, file=path, line=lines.get(place, 1))


def _asked(form: _Asked, file: _File, request_id: str) -> Asked | str:
    """The question, or what to mend in it."""
    at = file.defaults.at if form.at is None else form.at
    model = form.request.model or file.defaults.model
    if at is None:
        return "key `at` is missing; add the event time, such as `2026-11-20T12:00:00Z`"
    if model is None:
        return "key `model` is missing; add it to the request"
    principal = _uid(form.who, "User")
    if principal is None:
        return '`who` is no entity; write a user\'s id, or `Type::"id"`'
    by = form.via or (None if principal[0] == "Service" else file.defaults.via)
    actor = principal if by is None and principal[0] == "Service" else _uid(by or "", "Service")
    if actor is None:
        return "`via` is missing; name the service that carries the request"
    documents = []
    for each in form.request.documents:
        if isinstance(each, str) and each not in file.documents:
            return f"`documents` of the file holds no `{each}`; add it there, or correct the name"
        documents.append((file.documents[each] if isinstance(each, str) else each).document())
    request = RequestSubmitted(
        request_id=request_id,
        model=model,
        purpose=form.request.purpose,
        messages=tuple(Message(role=Role(each.role), content=each.content) for each in form.request.messages),
        documents=tuple(documents),
        tools=form.request.tools,
        parameters=Parameters(**form.request.parameters.model_dump()),
    )
    entities = {entity_uid(each.uid.type, each.uid.id): each.model_dump() for each in form.directory}
    return Asked(principal=principal, actor=actor, time_ms=at, request=request, put=put_of(entities))


def _uid(text: str, default_type: str) -> tuple[str, str] | None:
    """An entity: `Type::"id"`, or an id alone for one of `default_type`."""
    if '"' not in text:
        return (default_type, text) if text else None
    try:
        return split_uid(text)
    except ValueError:
        return None
