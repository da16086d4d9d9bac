"""What an operator can do with mailboxes while the relay runs. Knows nothing of HTTP or pages."""

from xoauth2_proxy.mailboxes.additions import Added, Additions, Proposal
from xoauth2_proxy.mailboxes.mailboxes import Mailboxes, Means
from xoauth2_proxy.mailboxes.ports import (
    AlreadyThere,
    KeptAccounts,
    Mailbox,
    NotPossible,
    ProviderInfo,
    Running,
    TooSoon,
    UnknownMailbox,
    WrittenInFile,
)

__all__ = [
    "Added",
    "Additions",
    "AlreadyThere",
    "KeptAccounts",
    "Mailbox",
    "Mailboxes",
    "Means",
    "NotPossible",
    "Proposal",
    "ProviderInfo",
    "Running",
    "TooSoon",
    "UnknownMailbox",
    "WrittenInFile",
]
