"""Chooses the login of a client that sends without one, and that its address identifies.

No I/O. Which credentials an address may use is for the accounts to say
(`Accounts.without_password`): those of the most specific network. Among several, the sender
decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xoauth2_proxy.accounts.credential import login_key
from xoauth2_proxy.accounts.sender_rules import FromRule, SenderRules

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xoauth2_proxy.accounts.accounts import Login


def choose_login(logins: Sequence[Login], sender: str) -> Login | None:
    """Return the login to use for a message of this sender; None if that is not clear.

    The sender decides among several mailboxes: the one that it is, else the only one whose
    credential names it in `senders`. Among credentials of one mailbox, the one that names the
    sender, else the first.
    """
    mailboxes = {login.account.key for login in logins}
    if len(mailboxes) > 1:
        key = login_key(sender)
        logins = [one for one in logins if one.account.key == key] or [
            one for one in logins if _names(one, sender)
        ]
        if len({login.account.key for login in logins}) != 1:
            return None
    return next((one for one in logins if _names(one, sender)), logins[0])


def _names(login: Login, sender: str) -> bool:
    credential = login.credential
    return credential is not None and SenderRules(credential.senders, FromRule()).allows(sender)
