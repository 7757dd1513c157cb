"""A bundle that stands on a policy log goes in, an envelope of the very same content for another place comes out: of
another environment, or of the same one under its next version. Nothing is published here.
"""

from collections.abc import Sequence

from securesystemslib.signer import Signer  # type: ignore[attr-defined]

from sluicegate.enforcer.policy_kinds import Kind
from sluicegate.enforcer.trust import Domain
from sluicegate.enforcer.trust_make import Envelope
from sluicegate.envelopes import Term, make_envelope, misfit_of, signed_by
from sluicegate.policy_versions import PolicyView, Version
from sluicegate.schemas.errors import ConfigurationError, InvalidDirectory


def promoted(
    bundle: Version, target: PolicyView, *, domain: Domain, term: Term, signers: Sequence[Signer]
) -> Envelope | None:
    """The envelope that brings `bundle` to the environment of `target`; None where that content is its newest.

    Raises:
        InvalidDirectory: the directory there does not conform to the bundle: nothing would be decided by it.
        ConfigurationError: a signature would add nothing.
    """
    newest = target.of(Kind.BUNDLE)[-1:]
    if newest and newest[0].digest == bundle.digest:
        return None
    misfit = misfit_of(target, bundle.content)
    if misfit is not None:
        raise InvalidDirectory(
            (f"the directory of `{domain.env}` does not conform to this bundle; publish one that does first: {misfit}",)
        )
    fresh = make_envelope(Kind.BUNDLE, bundle.content, domain=domain, term=term, signers=())
    return signed_by(fresh, signers, target)


def running_bundle(view: PolicyView, env: str) -> Version:
    """The bundle in force.

    Raises:
        ConfigurationError: there is none.
    """
    found = view.in_force(Kind.BUNDLE)
    if found is None:
        raise ConfigurationError(f"no bundle is in force in `{env}`; publish one there first")
    return found[0]


def earlier_bundle(view: PolicyView, env: str, version: int | None) -> Version:
    """The bundle of that version; without one, the newest whose content is another than the newest one's.

    Raises:
        ConfigurationError: the log holds no such bundle.
    """
    known = view.of(Kind.BUNDLE)
    if version is None:
        found = next((each for each in reversed(known) if each.digest != known[-1].digest), None)
        wanted = "an earlier bundle"
    else:
        found = next((each for each in known if each.version == version), None)
        wanted = f"bundle v{version}"
    if found is None:
        held = ", ".join(f"v{each.version}" for each in known) or "none"
        raise ConfigurationError(
            f"the policy log of `{env}` holds no such version, {wanted} (it holds {held}); sign the folder instead: "
            "`sluicegate policy sign --bundle`"
        )
    return found
