"""Why a request was not answered: the closed list of codes, and of the ways in which a request ends.

What each code means to a requester: `meanings`.
"""

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
    # 3 take the policy state at T, and compare T with the deadline; 11 the runner compares again, and
    # it and the redactor ask again whether it is stopped
    POLICY_NOT_READY = "POLICY_NOT_READY"
    POLICY_STALE = "POLICY_STALE"
    STOPPED = "STOPPED"
    EXPIRED = "EXPIRED"
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
    PROMPT_NOT_CHECKED = "PROMPT_NOT_CHECKED"
    # 7 clamp the parameters
    PARAMETER_INVALID = "PARAMETER_INVALID"
    OVER_LIMIT = "OVER_LIMIT"
    # 10 verify the grant, 11 generate
    FORGED = "FORGED"
    BLOCKED = "BLOCKED"
    PROMPT_TOO_LONG = "PROMPT_TOO_LONG"
    MODEL_MISSING = "MODEL_MISSING"
    MODEL_FAILED = "MODEL_FAILED"
    # 12 to 14 the redactor
    GENERATION_MISMATCH = "GENERATION_MISMATCH"
    REDACTION_FAILED = "REDACTION_FAILED"


class ReleaseOutcome(StrEnum):
    """How a request ended, as its terminal release says it; each code has exactly one."""

    RELEASED = "RELEASED"
    """The release carries the answer, redacted."""
    DENIED = "DENIED"
    """Who asked was not proved, or policy says no."""
    REFUSED = "REFUSED"
    """It could not be carried out: the record, the house's own state, or a check of the way through failed."""
    EXPIRED = "EXPIRED"
    """The time for it ran out before a model call started."""
    HELD = "HELD"
    """It waits for somebody's consent; no code leads here yet, since no check holds anything."""
    BLOCKED = "BLOCKED"
    """The obligations left the model nothing to say."""
