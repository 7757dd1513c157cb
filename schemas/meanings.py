"""A code goes in, what it means to a requester comes out: outcome, text, remedy, when to ask again; nobody else knows.

`docs/codes.md` holds `markdown_table()` of it, word for word.
"""

from dataclasses import dataclass
from typing import Final

from sluicegate.schemas.codes import Code, ReleaseOutcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What a code says to a requester.

    `check`: the numbered check that gives it first. `text`: why. `mend`: what to do about it. `retry_after_s`: how long
    to wait before the same question may be answered; None where waiting does not help. `visible`: whether the reason
    that a stage gave beside the code may be told; if not, `text` stands in its place.
    """

    check: int
    outcome: ReleaseOutcome
    text: str
    mend: str
    retry_after_s: int | None = None
    visible: bool = False

    @property
    def retryable(self) -> bool:
        """Whether the same question may be answered later."""
        return self.retry_after_s is not None

    @property
    def retry_after_ms(self) -> int | None:
        """`retry_after_s` in milliseconds, as a release carries it."""
        return None if self.retry_after_s is None else 1000 * self.retry_after_s

    def told(self, reason: str | None) -> str:
        """What a requester reads where a stage gave `reason`."""
        return reason if self.visible and reason else self.text


MEANINGS: Final[dict[Code, Meaning]] = {
    Code.OK: Meaning(
        check=0,
        outcome=ReleaseOutcome.RELEASED,
        text="allowed",
        mend="read the answer",
    ),
    Code.POISON: Meaning(
        check=1,
        outcome=ReleaseOutcome.REFUSED,
        text="the record cannot be read as a request",
        mend="send a RequestSubmitted by its schema, and nothing else",
    ),
    Code.TOO_LARGE: Meaning(
        check=1,
        outcome=ReleaseOutcome.REFUSED,
        text="the request is over the size limit",
        mend="send less context",
    ),
    Code.GAP: Meaning(
        check=1,
        outcome=ReleaseOutcome.REFUSED,
        text="the log holds no record at this offset",
        mend="nothing of yours stood there; an operator looks at the broker",
    ),
    Code.STALE: Meaning(
        check=1,
        outcome=ReleaseOutcome.EXPIRED,
        text="the request is older than the configured limit",
        mend="ask again if the answer still matters",
        retry_after_s=0,
    ),
    Code.PROOF_MISSING: Meaning(
        check=2,
        outcome=ReleaseOutcome.DENIED,
        text="exactly one sg-proof header is required, and at most one sg-token",
        mend="send one proof with each record",
    ),
    Code.PROOF_MALFORMED: Meaning(
        check=2,
        outcome=ReleaseOutcome.DENIED,
        text="the sg-proof header is not a strict compact JWS of type sg-proof+jwt",
        mend="make the proof as the producers' guide shows",
    ),
    Code.PROOF_KEY_UNKNOWN: Meaning(
        check=2,
        outcome=ReleaseOutcome.DENIED,
        text="the key of the proof is not admitted for this service",
        mend="have the key put into the directory, or use the one that is there",
    ),
    Code.PROOF_SIGNATURE: Meaning(
        check=2,
        outcome=ReleaseOutcome.DENIED,
        text="the signature of the proof does not verify",
        mend="sign with the private half of the key that `kid` names, by its algorithm",
    ),
    Code.PROOF_AUDIENCE: Meaning(
        check=2,
        outcome=ReleaseOutcome.DENIED,
        text="the proof is for another environment or topic",
        mend="set `aud` to the environment and topic that you write to",
    ),
    Code.PROOF_KEY: Meaning(
        check=2,
        outcome=ReleaseOutcome.DENIED,
        text="the proof is for another record key",
        mend="put the record key, which is the principal, into the proof",
        visible=True,
    ),
    Code.PROOF_BODY: Meaning(
        check=2,
        outcome=ReleaseOutcome.DENIED,
        text="the proof is for another body",
        mend="hash the value that you send, byte for byte",
    ),
    Code.PROOF_TIME: Meaning(
        check=2,
        outcome=ReleaseOutcome.DENIED,
        text="the proof is too old or from the future",
        mend="set the clock, then ask again with a new proof",
        retry_after_s=0,
    ),
    Code.PROOF_REPLAYED: Meaning(
        check=2,
        outcome=ReleaseOutcome.DENIED,
        text="this proof was already used",
        mend="make a new proof for every record",
    ),
    Code.TOKEN_MALFORMED: Meaning(
        check=2,
        outcome=ReleaseOutcome.DENIED,
        text="the sg-token header is not a strict compact JWT",
        mend="pass the provider's access token on as it is",
    ),
    Code.TOKEN_ISSUER: Meaning(
        check=2,
        outcome=ReleaseOutcome.DENIED,
        text="the issuer or key of the token is not admitted",
        mend="have the issuer put into the directory",
    ),
    Code.TOKEN_SIGNATURE: Meaning(
        check=2,
        outcome=ReleaseOutcome.DENIED,
        text="the signature of the token does not verify",
        mend="pass the provider's access token on as it is",
    ),
    Code.TOKEN_AUDIENCE: Meaning(
        check=2,
        outcome=ReleaseOutcome.DENIED,
        text="the token is for another audience",
        mend="ask the provider for a token for the audience in the directory",
    ),
    Code.TOKEN_TIME: Meaning(
        check=2,
        outcome=ReleaseOutcome.DENIED,
        text="the token has expired or is not valid yet",
        mend="get a new token, then ask again with a new proof",
        retry_after_s=0,
    ),
    Code.TOKEN_PROOF: Meaning(
        check=2,
        outcome=ReleaseOutcome.DENIED,
        text="the proof was made for another token",
        mend="put the hash of the token that you send into the proof",
    ),
    Code.TOKEN_BINDING: Meaning(
        check=2,
        outcome=ReleaseOutcome.DENIED,
        text="the token is not bound to the service that sent it",
        mend="have the provider bind its tokens to the service",
    ),
    Code.WRONG_PARTITION: Meaning(
        check=2,
        outcome=ReleaseOutcome.DENIED,
        text="the record stands on another partition than its key says",
        mend="leave the partition to Kafka's default (murmur2) partitioner",
    ),
    Code.DUPLICATE_OF: Meaning(
        check=2,
        outcome=ReleaseOutcome.REFUSED,
        text="this request was already decided; see the decision named",
        mend="wait for the release of the decision named, or read it again",
    ),
    Code.REQUEST_ID_REUSED: Meaning(
        check=2,
        outcome=ReleaseOutcome.REFUSED,
        text="this request id was already used for another body",
        mend="give each request an id of its own",
    ),
    Code.POLICY_NOT_READY: Meaning(
        check=3,
        outcome=ReleaseOutcome.REFUSED,
        text="no complete policy state is in force yet",
        mend="ask again later; an operator publishes the policy",
        retry_after_s=5,
    ),
    Code.POLICY_STALE: Meaning(
        check=3,
        outcome=ReleaseOutcome.REFUSED,
        text="nobody has promised for too long that no version of the policy is missing here",
        mend="ask again later; an operator starts the freshness stage, or lets its records and the policy through",
        retry_after_s=5,
    ),
    Code.STOPPED: Meaning(
        check=3,
        outcome=ReleaseOutcome.REFUSED,
        text="an incident stop holds for this request",
        mend="ask an operator; once it is undone, ask again under a new request id",
    ),
    Code.EXPIRED: Meaning(
        check=3,
        outcome=ReleaseOutcome.EXPIRED,
        text="the deadline passed before a model call started",
        mend="ask again with a later deadline and a new request id",
        retry_after_s=0,
    ),
    Code.UNKNOWN_PRINCIPAL: Meaning(
        check=4,
        outcome=ReleaseOutcome.DENIED,
        text="the principal is not in the directory",
        mend="have the person or service put into the directory",
    ),
    Code.UNKNOWN_ACTOR: Meaning(
        check=4,
        outcome=ReleaseOutcome.DENIED,
        text="the service that carries the request is not in the directory",
        mend="have the service put into the directory",
    ),
    Code.UNKNOWN_MODEL: Meaning(
        check=4,
        outcome=ReleaseOutcome.DENIED,
        text="the model is not in the directory",
        mend="name a model of the directory",
    ),
    Code.UNKNOWN_PURPOSE: Meaning(
        check=4,
        outcome=ReleaseOutcome.DENIED,
        text="the purpose is not in the schema",
        mend="name a purpose of the schema",
    ),
    Code.DENIED: Meaning(
        check=4,
        outcome=ReleaseOutcome.DENIED,
        text="no policy permits this, or one forbids it",
        mend="ask the policy's owner, with the decision id",
        visible=True,
    ),
    Code.POLICY_ERROR: Meaning(
        check=4,
        outcome=ReleaseOutcome.DENIED,
        text="a policy failed on this request, so it is denied",
        mend="tell the policy's owner the decision id",
    ),
    Code.UNKNOWN_DATASET: Meaning(
        check=5,
        outcome=ReleaseOutcome.DENIED,
        text="a document is of a dataset that is not in the directory",
        mend="name a dataset of the directory",
    ),
    Code.UNKNOWN_FIELD: Meaning(
        check=5,
        outcome=ReleaseOutcome.DENIED,
        text="a document has a field that is not in the directory",
        mend="send only fields that the directory knows",
    ),
    Code.WITHHELD_REFUSED: Meaning(
        check=5,
        outcome=ReleaseOutcome.DENIED,
        text="a field may not enter the prompt and policy refuses to go on without it",
        mend="leave the field out",
        visible=True,
    ),
    Code.TOOLS_UNSUPPORTED: Meaning(
        check=5,
        outcome=ReleaseOutcome.REFUSED,
        text="tools are not carried out by this release",
        mend="send no tools",
    ),
    Code.SHAPE_DENIED: Meaning(
        check=6,
        outcome=ReleaseOutcome.DENIED,
        text="no shape policy matched, or one denied or failed",
        mend="ask the policy's owner, with the decision id",
        visible=True,
    ),
    Code.OBLIGATION_CONFLICT: Meaning(
        check=6,
        outcome=ReleaseOutcome.DENIED,
        text="two policies ask for different values of an obligation that must be equal",
        mend="tell the policy's owner the decision id",
    ),
    Code.OBLIGATION_UNSUPPORTED: Meaning(
        check=6,
        outcome=ReleaseOutcome.DENIED,
        text="an obligation is carried out by no stage",
        mend="tell the policy's owner the decision id",
    ),
    Code.SYSTEM_MESSAGE: Meaning(
        check=6,
        outcome=ReleaseOutcome.REFUSED,
        text="instructions come from policy",
        mend="send no system message",
    ),
    Code.CONTROL_CHARACTER: Meaning(
        check=6,
        outcome=ReleaseOutcome.REFUSED,
        text="the text holds a control character that no model token carries",
        mend="remove it",
    ),
    Code.PROMPT_NOT_CHECKED: Meaning(
        check=6,
        outcome=ReleaseOutcome.REFUSED,
        text="the messages could not be searched for what they may not hold",
        mend="send shorter messages",
    ),
    Code.PARAMETER_INVALID: Meaning(
        check=7,
        outcome=ReleaseOutcome.REFUSED,
        text="a parameter is out of its range",
        mend="correct it",
        visible=True,
    ),
    Code.OVER_LIMIT: Meaning(
        check=7,
        outcome=ReleaseOutcome.DENIED,
        text="more is asked for than policy grants, and policy refuses rather than clamps",
        mend="ask for no more than the limit",
        visible=True,
    ),
    Code.FORGED: Meaning(
        check=10,
        outcome=ReleaseOutcome.REFUSED,
        text="the record is not effective: its seal or its position is wrong",
        mend="nothing of yours has this code; an operator looks at who may write to the log",
    ),
    Code.BLOCKED: Meaning(
        check=11,
        outcome=ReleaseOutcome.BLOCKED,
        text="no token was left that the obligations allow",
        mend="ask in another way",
    ),
    Code.PROMPT_TOO_LONG: Meaning(
        check=11,
        outcome=ReleaseOutcome.REFUSED,
        text="the prompt and the answer do not fit the model's window",
        mend="send less context, or ask for fewer tokens",
    ),
    Code.MODEL_MISSING: Meaning(
        check=11,
        outcome=ReleaseOutcome.REFUSED,
        text="this runner does not hold the model",
        mend="tell an operator",
    ),
    Code.MODEL_FAILED: Meaning(
        check=11,
        outcome=ReleaseOutcome.REFUSED,
        text="the model call failed",
        mend="ask again under a new request id",
        retry_after_s=1,
    ),
    Code.GENERATION_MISMATCH: Meaning(
        check=12,
        outcome=ReleaseOutcome.REFUSED,
        text="the generation does not belong to an effective grant",
        mend="tell an operator the decision id",
    ),
    Code.REDACTION_FAILED: Meaning(
        check=14,
        outcome=ReleaseOutcome.REFUSED,
        text="the answer could not be checked, so it is not released",
        mend="ask in another way; tell an operator the decision id",
    ),
}


def markdown_table() -> str:
    """The table as `docs/codes.md` shows it: one row a code, in the order of the checks."""
    head = ("code", "check", "outcome", "again after", "reason", "what it says", "what to do")
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for code in Code:
        meaning = MEANINGS[code]
        again = "no" if meaning.retry_after_s is None else f"{meaning.retry_after_s} s"
        cells = (
            f"`{code}`",
            str(meaning.check),
            f"`{meaning.outcome}`",
            again,
            "as given" if meaning.visible else "fixed",
            meaning.text,
            meaning.mend,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
