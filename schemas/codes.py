"""Why a request was not answered: the closed list of codes, the check that gives each, and whether to try again."""

from dataclasses import dataclass
from enum import StrEnum


class Code(StrEnum):
    """The reason of a decision, a generation or a release; `OK` is the only one that grants."""

    OK = "OK"
    # 1 decode
    POISON = "POISON"
    TOO_LARGE = "TOO_LARGE"
    GAP = "GAP"
    STALE = "STALE"
    # 2 prove the identity
    PROOF_MISSING = "PROOF_MISSING"
    PROOF_MALFORMED = "PROOF_MALFORMED"
    PROOF_KEY_UNKNOWN = "PROOF_KEY_UNKNOWN"
    PROOF_SIGNATURE = "PROOF_SIGNATURE"
    PROOF_AUDIENCE = "PROOF_AUDIENCE"
    PROOF_KEY = "PROOF_KEY"
    PROOF_BODY = "PROOF_BODY"
    PROOF_TIME = "PROOF_TIME"
    PROOF_REPLAYED = "PROOF_REPLAYED"
    TOKEN_MALFORMED = "TOKEN_MALFORMED"  # noqa: S105 - a code, not a secret
    TOKEN_ISSUER = "TOKEN_ISSUER"  # noqa: S105
    TOKEN_SIGNATURE = "TOKEN_SIGNATURE"  # noqa: S105
    TOKEN_AUDIENCE = "TOKEN_AUDIENCE"  # noqa: S105
    TOKEN_TIME = "TOKEN_TIME"  # noqa: S105
    TOKEN_PROOF = "TOKEN_PROOF"  # noqa: S105
    TOKEN_BINDING = "TOKEN_BINDING"  # noqa: S105
    WRONG_PARTITION = "WRONG_PARTITION"
    DUPLICATE_OF = "DUPLICATE_OF"
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"
    # 3 take the policy state
    POLICY_NOT_READY = "POLICY_NOT_READY"
    # 4 decide access
    UNKNOWN_PRINCIPAL = "UNKNOWN_PRINCIPAL"
    UNKNOWN_ACTOR = "UNKNOWN_ACTOR"
    UNKNOWN_MODEL = "UNKNOWN_MODEL"
    UNKNOWN_PURPOSE = "UNKNOWN_PURPOSE"
    DENIED = "DENIED"
    POLICY_ERROR = "POLICY_ERROR"
    # 5 decide each document, field and tool
    UNKNOWN_DATASET = "UNKNOWN_DATASET"
    UNKNOWN_FIELD = "UNKNOWN_FIELD"
    WITHHELD_REFUSED = "WITHHELD_REFUSED"
    TOOLS_UNSUPPORTED = "TOOLS_UNSUPPORTED"
    # 6 shape the prompt
    SHAPE_DENIED = "SHAPE_DENIED"
    OBLIGATION_CONFLICT = "OBLIGATION_CONFLICT"
    OBLIGATION_UNSUPPORTED = "OBLIGATION_UNSUPPORTED"
    SYSTEM_MESSAGE = "SYSTEM_MESSAGE"
    CONTROL_CHARACTER = "CONTROL_CHARACTER"
    # 7 clamp the parameters
    PARAMETER_INVALID = "PARAMETER_INVALID"
    # 10 verify the grant, 11 generate
    FORGED = "FORGED"
    EXPIRED = "EXPIRED"
    BLOCKED = "BLOCKED"
    PROMPT_TOO_LONG = "PROMPT_TOO_LONG"
    MODEL_MISSING = "MODEL_MISSING"
    MODEL_FAILED = "MODEL_FAILED"
    # 12 to 14 the redactor
    GENERATION_MISMATCH = "GENERATION_MISMATCH"
    REDACTION_FAILED = "REDACTION_FAILED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What a code says to a requester: the numbered check, a text, and whether the same request may succeed later."""

    check: int
    text: str
    retryable: bool = False


MEANINGS: dict[Code, Meaning] = {
    Code.OK: Meaning(check=0, text="allowed"),
    Code.POISON: Meaning(
        check=1, text="the record cannot be read as a request; send Avro single-object RequestSubmitted"
    ),
    Code.TOO_LARGE: Meaning(check=1, text="the request is over the size limit; send less context"),
    Code.GAP: Meaning(check=1, text="the log holds no record at this offset"),
    Code.STALE: Meaning(check=1, text="the request is older than the configured limit", retryable=True),
    Code.PROOF_MISSING: Meaning(check=2, text="exactly one sg-proof header is required, and at most one sg-token"),
    Code.PROOF_MALFORMED: Meaning(check=2, text="the sg-proof header is not a strict compact JWS of type sg-proof+jwt"),
    Code.PROOF_KEY_UNKNOWN: Meaning(check=2, text="the key of the proof is not admitted for this service"),
    Code.PROOF_SIGNATURE: Meaning(check=2, text="the signature of the proof does not verify"),
    Code.PROOF_AUDIENCE: Meaning(check=2, text="the proof is for another environment or topic"),
    Code.PROOF_KEY: Meaning(check=2, text="the proof is for another record key"),
    Code.PROOF_BODY: Meaning(check=2, text="the proof is for another body"),
    Code.PROOF_TIME: Meaning(check=2, text="the proof is too old or from the future", retryable=True),
    Code.PROOF_REPLAYED: Meaning(check=2, text="this proof was already used"),
    Code.TOKEN_MALFORMED: Meaning(check=2, text="the sg-token header is not a strict compact JWT"),
    Code.TOKEN_ISSUER: Meaning(check=2, text="the issuer or key of the token is not admitted"),
    Code.TOKEN_SIGNATURE: Meaning(check=2, text="the signature of the token does not verify"),
    Code.TOKEN_AUDIENCE: Meaning(check=2, text="the token is for another audience"),
    Code.TOKEN_TIME: Meaning(check=2, text="the token has expired or is not valid yet", retryable=True),
    Code.TOKEN_PROOF: Meaning(check=2, text="the proof was made for another token"),
    Code.TOKEN_BINDING: Meaning(check=2, text="the token is not bound to the service that sent it"),
    Code.WRONG_PARTITION: Meaning(check=2, text="the record stands on another partition than its key says"),
    Code.DUPLICATE_OF: Meaning(check=2, text="this request was already decided; see the decision named"),
    Code.REQUEST_ID_REUSED: Meaning(check=2, text="this request id was already used for another body"),
    Code.POLICY_NOT_READY: Meaning(check=3, text="no complete policy state is in force yet", retryable=True),
    Code.UNKNOWN_PRINCIPAL: Meaning(check=4, text="the principal is not in the directory"),
    Code.UNKNOWN_ACTOR: Meaning(check=4, text="the service that carries the request is not in the directory"),
    Code.UNKNOWN_MODEL: Meaning(check=4, text="the model is not in the directory"),
    Code.UNKNOWN_PURPOSE: Meaning(check=4, text="the purpose is not in the schema"),
    Code.DENIED: Meaning(check=4, text="no policy permits this, or one forbids it"),
    Code.POLICY_ERROR: Meaning(check=4, text="a policy failed on this request, so it is denied"),
    Code.UNKNOWN_DATASET: Meaning(check=5, text="a document is of a dataset that is not in the directory"),
    Code.UNKNOWN_FIELD: Meaning(check=5, text="a document has a field that is not in the directory"),
    Code.WITHHELD_REFUSED: Meaning(
        check=5, text="a field may not enter the prompt and policy refuses to go on without it"
    ),
    Code.TOOLS_UNSUPPORTED: Meaning(check=5, text="tools are not carried out by this release"),
    Code.SHAPE_DENIED: Meaning(check=6, text="no shape policy matched, or one denied or failed"),
    Code.OBLIGATION_CONFLICT: Meaning(
        check=6, text="two policies ask for different values of an obligation that must be equal"
    ),
    Code.OBLIGATION_UNSUPPORTED: Meaning(check=6, text="an obligation is carried out by no stage"),
    Code.SYSTEM_MESSAGE: Meaning(check=6, text="instructions come from policy; send no system message"),
    Code.CONTROL_CHARACTER: Meaning(
        check=6, text="the text holds a control character that no model token carries; remove it"
    ),
    Code.PARAMETER_INVALID: Meaning(check=7, text="a parameter is out of its range"),
    Code.FORGED: Meaning(check=10, text="the record is not effective: its seal or its position is wrong"),
    Code.EXPIRED: Meaning(check=11, text="the deadline passed before a model call started", retryable=True),
    Code.BLOCKED: Meaning(check=11, text="no token was left that the obligations allow"),
    Code.PROMPT_TOO_LONG: Meaning(
        check=11, text="the prompt and the answer do not fit the model's window; send less context"
    ),
    Code.MODEL_MISSING: Meaning(check=11, text="this runner does not hold the model"),
    Code.MODEL_FAILED: Meaning(check=11, text="the model call failed", retryable=True),
    Code.GENERATION_MISMATCH: Meaning(check=12, text="the generation does not belong to an effective grant"),
    Code.REDACTION_FAILED: Meaning(check=14, text="the answer could not be checked, so it is not released"),
}
