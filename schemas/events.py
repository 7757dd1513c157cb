"""The events of the way through the house as frozen dataclasses; `avro/` documents each field, `codec` turns them to
bytes.
"""

from dataclasses import dataclass
from enum import StrEnum

from sluicegate.schemas.codes import Code, ReleaseOutcome


class Role(StrEnum):
    """Who speaks a message, as chat templates know it."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


class Verdict(StrEnum):
    """What a decision says; an allow is the grant."""

    ALLOW = "ALLOW"
    DENY = "DENY"


class Outcome(StrEnum):
    """How a generation ended; what the requester is told of it is a release's `ReleaseOutcome`."""

    ANSWERED = "ANSWERED"
    DENIED = "DENIED"
    REFUSED = "REFUSED"
    EXPIRED = "EXPIRED"
    BLOCKED = "BLOCKED"
    FAILED = "FAILED"


class PolicyKind(StrEnum):
    """What a policy event carries: the root, who may sign what, the stages' keys, a bundle, what stops, a candidate."""

    ROOT = "ROOT"
    KEYS = "KEYS"
    BUNDLE = "BUNDLE"
    ROLES = "ROLES"
    STOP = "STOP"
    RESUME = "RESUME"
    SHADOW = "SHADOW"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message of a conversation as the producer sent it."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldText:
    """One piece of a document: text that belongs to exactly one named field. A field may come more than once."""

    name: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """Context for the model: pieces of fields in the order in which they are read."""

    dataset: str
    document_id: str
    fields: tuple[FieldText, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """What the producer asks of the sampler; None asks for nothing."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stream: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSubmitted:
    """What a producer publishes."""

    request_id: str
    model: str
    purpose: str
    messages: tuple[Message, ...]
    documents: tuple[Document, ...] = ()
    tools: tuple[str, ...] = ()
    parameters: Parameters = Parameters()
    deadline_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The offsets of the input partition that an output record covers; more than one only for gaps and foreign
    records.
    """

    offset: int
    count: int
    digest: bytes
    timestamp_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who asked, as check 2 proved it. `proof_id` and `proof_issuer` are spent by it."""

    principal: str
    actor: str
    proof_issuer: str
    proof_id: str
    proof_issued_at_s: int
    proof_key_id: str
    token_issuer: str | None = None
    token_key_id: str | None = None
    token_expires_at_s: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyVersion:
    """Exactly which policy state decided."""

    position: int
    root_version: int
    bundle_version: int
    bundle_digest: str
    directory_version: int
    directory_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """One Cedar decision with the request it was made on; `context` is canonical JSON."""

    action: str
    principal: str
    resource: str
    context: str
    allowed: bool
    policies: tuple[str, ...]
    errors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Obligation:
    """One merged obligation; `value` is canonical JSON, `policies` are the ids it came from."""

    name: str
    value: str
    policies: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A piece of a shaped message and where it came from: `template:..`, `message:N`, `redacted:message:N`, `field:..`,
    `withheld:..`, `alias:..`, or `frame` for the gate's own.
    """

    text: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapedMessage:
    """One message as the model will read it."""

    role: Role
    segments: tuple[Segment, ...]

    def text(self) -> str:
        """The whole message."""
        return "".join(segment.text for segment in self.segments)


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """The sampler's parameters under the grant; they win over the request. `choices` empty means free text."""

    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    seed: int
    stop: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Clamp:
    """A parameter that was asked for and granted tighter."""

    name: str
    asked: str
    granted: str
    policies: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasUse:
    """A term of `term_list` that was replaced by its public name before the model read it."""

    term_list: str
    alias: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """One row of a prompt's bill of materials: all `bytes` (of UTF-8) that came from `source`, and the policies that
    let it in or put it there; none for the gate itself. `documents` counts the request's documents from 0.
    """

    source: str
    policies: tuple[str, ...]
    documents: tuple[int, ...]
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptRedaction:
    """Values of one class and rule that the model does not read, of the message `source`; the values are not kept."""

    source: str
    redaction_class: str
    operator: str
    rule_id: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionMade:
    """Allow or deny with every input it was made from. An allow is the grant."""

    decision_id: str
    source: Source
    time_ms: int
    verdict: Verdict
    code: Code
    check: int
    reason: str | None = None
    request_id: str | None = None
    duplicate_of: str | None = None
    identity: Identity | None = None
    model: str | None = None
    purpose: str | None = None
    policy: PolicyVersion | None = None
    determining: tuple[str, ...] = ()
    rulings: tuple[Ruling, ...] = ()
    obligations: tuple[Obligation, ...] = ()
    prompt: tuple[ShapedMessage, ...] = ()
    granted: Granted | None = None
    clamps: tuple[Clamp, ...] = ()
    admitted: tuple[str, ...] = ()
    withheld: tuple[str, ...] = ()
    aliases: tuple[AliasUse, ...] = ()
    deadline_ms: int | None = None
    materials: tuple[Material, ...] = ()
    prompt_redactions: tuple[PromptRedaction, ...] = ()
    prompt_tokens_max: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The runner's window when it appended: the first decision offset without an output, and how far it may run
    ahead.
    """

    first: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRun:
    """What ran, exactly: enough to run it again."""

    provider: str
    graph_digest: str
    tokenizer_digest: str
    seed: int
    prompt_tokens: int
    output_tokens: int
    finish: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationFinished:
    """What the model produced under a grant, or why there was no model call."""

    generation_id: str
    source: Source
    window: Window
    outcome: Outcome
    code: Code
    decision_id: str | None = None
    text: str | None = None
    run: ModelRun | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RedactionMade:
    """One span of the generation that was not released as it stood; offsets are characters of the generation."""

    redaction_class: str
    start: int
    end: int
    rule_id: str
    operator: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseMade:
    """The redacted answer, or the refusal, that the requester may see: the one terminal event of a request."""

    release_id: str
    source: Source
    outcome: ReleaseOutcome
    code: Code
    retryable: bool
    retry_after_ms: int | None = None
    request_offset: int | None = None
    request_id: str | None = None
    decision_id: str | None = None
    duplicate_of: str | None = None
    principal: str | None = None
    actor: str | None = None
    reason: str | None = None
    text: str | None = None
    finish: str | None = None
    withheld: tuple[str, ...] = ()
    redactions: tuple[RedactionMade, ...] = ()
    unsupported: int = 0
    clamps: tuple[Clamp, ...] = ()
    rules_digest: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyPublished:
    """A signed version of root, roles, stage keys or bundle, a stop or its end: TUF metadata with its content."""

    kind: PolicyKind
    version: int
    metadata: bytes
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryChanged:
    """A signed version of the directory: entities, service keys, issuers and replies, whole or what changes of them."""

    version: int
    metadata: bytes
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceStatement:
    """What a stage says of one slice: exactly these records, at exactly this place."""

    env: str
    tenant: str
    epoch: int
    topic: str
    partition: int
    at: int
    count: int
    source_first: int
    source_last: int
    time_ms: int
    policy_position: int
    key_id: str
    root: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceSeal:
    """The header `sg-seal` of a record: the signed statement of its slice, and its place and path in it."""

    statement: bytes
    signature: bytes
    index: int
    path: tuple[bytes, ...]


Event = RequestSubmitted | DecisionMade | GenerationFinished | ReleaseMade | PolicyPublished | DirectoryChanged
Encodable = Event | SliceStatement | SliceSeal
