"""Getting an access token, and what it says of itself. RFC 7519; the token is never shown."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from xoauth2_proxy.accounts.oauth_client import GrantType
from xoauth2_proxy.accounts.refresher_info import MOCK
from xoauth2_proxy.commands.doctor.context import NotNeeded, Trouble
from xoauth2_proxy.diagnostics import explain
from xoauth2_proxy.errors import TokenEndpointRefused, TokenError, TokenStoreUnavailable
from xoauth2_proxy.metrics import Metrics
from xoauth2_proxy.oauth.grant import unverified_claims
from xoauth2_proxy.oauth.mailbox_status import MEND_PLUG_IN
from xoauth2_proxy.oauth.refresh import TokenRefreshes

if TYPE_CHECKING:
    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.commands.doctor.context import DoctorContext

# learn.microsoft.com/troubleshoot/entra/entra-id/governance/verify-first-party-apps-sign-in
_GRAPH = ("https://graph.microsoft.com", "00000003-0000-0000-c000-000000000000")
_SOURCE = (
    "https://learn.microsoft.com/exchange/client-developer/legacy-protocols/"
    "how-to-authenticate-an-imap-pop-smtp-application-by-using-oauth"
)
_SKEW_SECONDS = 300.0
_NAMES = ("upn", "preferred_username", "unique_name", "email")
_MAX_SHOWN = 80  # characters of one claim


async def access_token(context: DoctorContext) -> str:
    """Ask the provider for a token as the proxy does: locked in the store, saved before used."""
    account = context.account
    if account.refresher != MOCK and not account.keeps_tokens:
        raise NotNeeded("clients bring their own tokens")
    refreshes = TokenRefreshes(
        context.given.refreshers, context.given.store, Metrics(), context.clock
    )
    try:
        token = await refreshes.refresh(account, is_forced=True)
    except TokenError as error:
        raise trouble_of(account, error) from None
    finally:
        await refreshes.save_all()  # the next mailbox needs the store
    context.access_token = token.value
    lasts_minutes = (token.expires_at - context.clock.monotonic()) / 60
    return f"got one for {lasts_minutes:.0f} minutes, {len(token.value)} characters"


def trouble_of(account: Account, error: TokenError) -> Trouble:
    """Return why there is no token for the account, and what to do."""
    if isinstance(error, TokenStoreUnavailable):
        return Trouble(f"the store failed: {error}", 'look at "store" in the configuration')
    words = str(error)
    if error.oauth_error and error.oauth_error not in words:
        words = f"{error.oauth_error}: {words}"
    advice = explain(words, account.refresher)
    if advice is not None:
        text = f"{words} – {advice.cause}"
        return Trouble(text, advice.remedy_for(account.email), advice.source)
    if error.is_transient:
        return Trouble(words, "wait and try again; if it lasts, look at the network")
    if isinstance(error, TokenEndpointRefused):
        return Trouble(words, _settings_of(account))
    command = f"xoauth2-proxy login {shlex.quote(account.email)}"
    # Where no one has signed in yet, the error names the command itself.
    return Trouble(words.removesuffix(f": {command}"), f"sign in again: {command}")


def _settings_of(account: Account) -> str:
    """Return what the operator does about a configuration that a refresher refuses."""
    if account.plug_in is None:
        return "look at the account's OAuth settings"
    if account.plug_in.fault:
        return MEND_PLUG_IN
    author = account.plug_in.origin
    return f"look at the account's options; if they are right, ask the author of {author}"


async def claims(context: DoctorContext) -> str:
    """Judge what the token says of itself, as far as it can be read."""
    if not context.access_token:
        raise NotNeeded("there is no token")
    found = unverified_claims(context.access_token)
    if found is None:
        raise NotNeeded("the token is opaque: the provider alone can read it")
    _judge_dates(found, context)
    if context.account.refresher == "outlook":
        _judge_audience(found, context)
        _judge_permission(found, context)
    _suspect_user(found, context)
    return ", ".join(_shown(found))


def _judge_dates(found: dict[str, Any], context: DoctorContext) -> None:
    now = context.clock.time()
    remedy = "set the clock, for example with: timedatectl set-ntp true"
    if (ends := _number(found, "exp")) is not None and ends <= now:
        raise Trouble(f"the new token ended {now - ends:.0f} s ago by this machine's clock", remedy)
    begins = _number(found, "nbf") or _number(found, "iat")
    if begins is not None and begins - now > _SKEW_SECONDS:
        wait = f"{begins - now:.0f} s"
        raise Trouble(f"the new token begins in {wait} by this machine's clock", remedy)


def _judge_audience(found: dict[str, Any], context: DoctorContext) -> None:
    audience = found.get("aud")
    if isinstance(audience, str) and audience.rstrip("/") in _GRAPH:
        is_application = context.account.oauth.grant_type is GrantType.CLIENT_CREDENTIALS
        scopes = "https://outlook.office.com/SMTP.Send offline_access"
        then = f", then: xoauth2-proxy login {shlex.quote(context.account.email)}"
        if is_application:
            scopes, then = "https://outlook.office365.com/.default", ""
        raise Trouble(
            "the token is for Microsoft Graph, and Exchange Online takes its own only",
            f'set "scopes" of the account to "{scopes}"{then}',
            _SOURCE,
        )


def _judge_permission(found: dict[str, Any], context: DoctorContext) -> None:
    roles, scopes = found.get("roles"), found.get("scp")
    if isinstance(scopes, str):
        if "SMTP.Send" not in scopes.split():
            raise Trouble(
                "the token has no permission SMTP.Send",
                'app registration > API permissions: add SMTP.Send; set "scopes" of the account '
                'to "https://outlook.office.com/SMTP.Send offline_access", then: xoauth2-proxy '
                f"login {shlex.quote(context.account.email)}",
                _SOURCE,
            )
    elif not (isinstance(roles, list) and "SMTP.SendAsApp" in roles):
        raise Trouble(
            "the application's token has no permission SMTP.SendAsApp",
            "app registration > API permissions > Office 365 Exchange Online > Application "
            "permissions > SMTP.SendAsApp, then Grant admin consent",
            _SOURCE,
        )


def _suspect_user(found: dict[str, Any], context: DoctorContext) -> None:
    # Right for a shared mailbox, otherwise the cause of a refusal.
    account = context.account
    names = {str(found[key]).lower() for key in _NAMES if found.get(key)}
    wanted = {account.email.lower(), account.oauth.sign_in_as.lower()}
    if names and not names & wanted:
        context.suspicions.append(
            (
                f"the token is {', '.join(sorted(names))[:_MAX_SHOWN]}'s, not {account.email}'s",
                f"sign in as the mailbox: xoauth2-proxy login {shlex.quote(account.email)}; or, "
                "for a shared mailbox, use the signed-in person's mailbox here and give it Send As",
            )
        )


def _shown(found: dict[str, Any]) -> list[str]:
    words = []
    for key in ("aud", "scp", "scope", "roles", *_NAMES, "tid", "appid", "azp"):
        value = found.get(key)
        if isinstance(value, list):
            value = " ".join(map(str, value))
        if isinstance(value, str) and value:
            kept = "".join(letter for letter in value if letter.isprintable())
            words.append(f"{key} {kept[:_MAX_SHOWN]}")
    return words or ["it says nothing of interest"]


def _number(found: dict[str, Any], key: str) -> float | None:
    value = found.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
