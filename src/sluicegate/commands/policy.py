"""`sluicegate policy`: the tools for people who write policy, each in a module of its own; `COMMANDS` lists them."""

import click

from sluicegate.commands.lazy import LazyGroup

COMMANDS: dict[str, tuple[str, str]] = {
    "new": ("sluicegate.commands.policy_new:new", "write a small working bundle into an empty folder"),
    "check": ("sluicegate.commands.policy_check:check", "say what is wrong with a bundle, with file, line and fix"),
    "test": ("sluicegate.commands.policy_test:test", "run the test cases of a bundle"),
    "explain": ("sluicegate.commands.policy_explain:explain", "say why a request is allowed or denied"),
    "diff": ("sluicegate.commands.policy_diff:diff", "say what a changed bundle would do otherwise"),
    "shadow": (
        "sluicegate.commands.policy_shadow:shadow",
        "let a candidate decide beside the active bundle, without effect",
    ),
    "render": ("sluicegate.commands.policy_render:render", "write a bundle as English sentences"),
    "sign": ("sluicegate.commands.policy_sign:sign", "make an envelope for an environment, or sign one"),
    "publish": ("sluicegate.commands.publish:publish", "publish what was signed, or what lies here"),
    "status": ("sluicegate.commands.policy_status:status", "what each environment and its workers run, drift, expiry"),
    "promote": ("sluicegate.commands.policy_promote:promote", "make an envelope for the next environment"),
    "rollback": ("sluicegate.commands.policy_promote:rollback", "make an envelope for earlier content"),
}


@click.group(cls=LazyGroup, table=COMMANDS)
def policy() -> None:
    """Write, check, test, explain and compare policy bundles; sign and publish them, let one decide in shadow, see
    what runs where.
    """
