"""Accounts of the tests' identity provider, and the parts that sign them in."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tests.support.accounts import mailbox
from tests.support.identity_server import NATIVE
from xoauth2_proxy.accounts.oauth_client import OAuthClient

if TYPE_CHECKING:
    from tests.support.identity_server import IdentityProvider
    from xoauth2_proxy.accounts.accounts import Account

ALICE = "alice@example.com"
BOB = "bob@example.com"
SMTP = "smtp"  # a scope of the tests' mail servers
MAIL_SCOPES = {
    "gmail": "https://mail.google.com/",
    "outlook": "https://outlook.office.com/SMTP.Send",
    "oidc": SMTP,
}


def account(
    provider: IdentityProvider,
    email: str = ALICE,
    *,
    kind: str = "oidc",
    client_id: str = NATIVE,
    **changes: Any,
) -> Account:
    """Return an account whose owner signs in there; `kind` is the refresher, as gmail."""
    client = OAuthClient(
        client_id=client_id,
        client_secret=provider.secret(client_id),
        scopes=(MAIL_SCOPES[kind],),
        ca_file=provider.ca_file,
    )
    if kind == "outlook":
        client = replace(client, authority=provider.entra_authority, tenant=provider.tenant)
    else:
        client = replace(client, issuer=provider.issuer)
    client = replace(client, **changes)
    return replace(mailbox(email), provider=kind, refresher=kind, oauth=client)
