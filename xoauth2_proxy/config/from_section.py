"""The keys of `from`: what becomes of a message's sender, and which `senders` that needs."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field

from xoauth2_proxy.accounts.sender_rules import FromRule, SenderRules
from xoauth2_proxy.config.problems import Fault
from xoauth2_proxy.config.section import Section, optional, setting
from xoauth2_proxy.config.values import Address

if TYPE_CHECKING:
    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.accounts.credential import Credential

_MAX_NAME_CHARACTERS = 200


def _name(name: str) -> str:
    if not name.isprintable() or not name.strip():
        raise ValueError("must be printable characters on one line, without control characters")
    return " ".join(name.split())


class FromSection(Section):
    """What becomes of the sender of a message."""

    rewrite: Address | None = optional(
        "The sender of messages whose own is not allowed, in MAIL and in the header's From. "
        "Without `senders` it is the only one allowed. By default such a message is refused."
    )
    reply_to: bool = setting(
        False, "Keep the From that was rewritten as Reply-To, unless there is one already."
    )
    display_name: (
        Annotated[str, Field(max_length=_MAX_NAME_CHARACTERS), AfterValidator(_name)] | None
    ) = optional("The name beside the address in From; by default the message's own.")

    def faults(self) -> Iterator[Fault]:
        """Yield a key without effect."""
        if self.reply_to and self.rewrite is None:
            yield "reply_to", "is of no use without rewrite; add it, or remove this"

    def rule(self) -> FromRule:
        """Return the rule that is described."""
        return FromRule(
            rewrite=self.rewrite or "",
            reply_to=self.reply_to,
            display_name=self.display_name or "",
        )


def rewrite_faults(account: "Account") -> Iterator[Fault]:
    """Yield each `rewrite` to an address that the senders beside it do not allow."""
    yield from rewrite_fault(account, None)
    for number, credential in enumerate(account.credentials):
        for key, fault in rewrite_fault(account, credential):
            yield f"credentials.{number}.{key}", fault


def rewrite_fault(account: "Account", credential: "Credential | None") -> Iterator[Fault]:
    """Yield that fault of one credential, or of the account itself, if it has it."""
    senders, rule = account.sender_settings(credential)
    if rule is None or not rule.rewrite or not senders:
        return
    if SenderRules(senders, rule).allows(rule.rewrite):
        return
    if credential is None or credential.from_rule is not None:
        yield (
            "from.rewrite",
            f"{rule.rewrite} is not among the senders allowed here; add it to senders, or write "
            "one of those",
        )
    elif credential.senders:
        yield (
            "senders",
            f"does not allow {rule.rewrite}, to which the account's from.rewrite leads; add it, "
            "or give the credential a `from` of its own",
        )
