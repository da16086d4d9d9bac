"""The ways to sign in: in a browser here, on another device, or by copying an address.

Each tells the person what to do, and returns what `conclude` returns for the tokens.
"""

from __future__ import annotations

import asyncio
import secrets
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit

from xoauth2_proxy.errors import SignInRefused
from xoauth2_proxy.oauth.loopback import LoopbackRedirect, parse_redirect

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from xoauth2_proxy.commands.console import Terminal
    from xoauth2_proxy.oauth.attempt import SignInResult
    from xoauth2_proxy.oauth.authorization import SignInServer

    Conclude: TypeAlias = Callable[[SignInResult], Awaitable[SignInResult]]

_PASTE_SECONDS = 900.0  # over to another machine and back, with a second factor on a third
_FREE_PORTS = range(49_152, 65_536)  # RFC 6335 §6: unassigned, so no page answers there


class SignInMethod(StrEnum):
    """How the person signs in."""

    WEB = "web"
    DEVICE = "device"
    PASTE = "paste"


def best_method(server: SignInServer, terminal: Terminal) -> tuple[SignInMethod, str]:
    """Return the way that suits this terminal, and why, as a sentence."""
    if server.browser_obstacle:
        return SignInMethod.DEVICE, "You sign in on any device that has a browser."
    obstacle = terminal.lacks_browser
    if not obstacle:
        return SignInMethod.WEB, "Your browser opens; sign in there."
    begin = obstacle[0].upper() + obstacle[1:]
    if not server.device_obstacle:
        return SignInMethod.DEVICE, f"{begin}, so you sign in on any device that has a browser."
    return (
        SignInMethod.PASTE,
        f"{begin}, and {server.device_obstacle}, so you copy an address from a browser elsewhere.",
    )


async def by_browser(
    server: SignInServer, terminal: Terminal, conclude: Conclude, port: int = 0
) -> SignInResult:
    """Sign in with a browser on this machine, which the provider sends back to us.

    Raises:
        SignInRefused: it came to nothing.
        ProxyError: something could not be asked.
    """
    host = urlsplit(server.redirect_uri(port)).hostname or ""
    async with LoopbackRedirect(port=port, host=host) as loopback:
        attempt = await server.begin(server.redirect_uri(loopback.port))
        terminal.tell("If no page appears, open this address in a browser on this machine:")
        terminal.say(f"\n  {attempt.url}\n")
        terminal.show(attempt.url)

        async def finish(answer: Mapping[str, str]) -> SignInResult:
            return await conclude(await server.finish(attempt, answer))

        return await loopback.result(attempt.state, finish)


async def by_device(
    server: SignInServer, terminal: Terminal, conclude: Conclude, port: int = 0
) -> SignInResult:
    """Sign in on another device; `port` is of no use here. Raises: as `by_browser`."""
    attempt = await server.begin_device()
    terminal.say(f"Open {attempt.verification_uri} on any device and type this code:")
    terminal.say(f"\n  {attempt.user_code}\n")
    if attempt.verification_uri_complete:
        terminal.say(f"Or open {attempt.verification_uri_complete}, which holds the code.")
    minutes = max(1, round(attempt.expires_in_seconds / 60))
    terminal.tell(f"The code is good for {minutes} minutes. Waiting …")
    return await conclude(await server.finish_device(attempt))


async def by_copying(
    server: SignInServer, terminal: Terminal, conclude: Conclude, port: int = 0
) -> SignInResult:
    """Sign in with a browser anywhere, and copy the address that it ends at.

    Raises: as `by_browser`.
    """
    port = port or secrets.choice(_FREE_PORTS)
    attempt = await server.begin(server.redirect_uri(port))
    terminal.tell("1. Open this address in a browser on any machine, and sign in:")
    terminal.say(f"\n  {attempt.url}\n")
    terminal.tell(
        "2. The browser then says that it cannot reach "
        f"{urlsplit(attempt.redirect_uri).netloc}. That is right."
    )
    terminal.tell(
        "3. Copy the whole address of that page from the address bar, paste it here and press "
        "Enter:"
    )
    try:
        async with asyncio.timeout(_PASTE_SECONDS):
            answer = parse_redirect(await terminal.line())
    except TimeoutError:
        raise SignInRefused(f"nothing was pasted within {_PASTE_SECONDS / 60:.0f} min") from None
    if not answer:
        raise SignInRefused("nothing was pasted")
    if answer.keys() == {"code"}:
        # The code alone: only this attempt has the code verifier that fits it.
        return await conclude(await server.finish_with_code(attempt, answer["code"]))
    if not answer.keys() & {"code", "error"}:
        raise SignInRefused(
            "this is not the address of the page that failed to load: it holds no code; copy "
            "the one that the browser shows after you have signed in"
        )
    return await conclude(await server.finish(attempt, answer))
