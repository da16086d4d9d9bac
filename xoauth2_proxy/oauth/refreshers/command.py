"""Runs a program that prints access tokens: pizauth, oama, mutt_oauth2 or the operator's own.

The configuration names the program and its arguments; no shell parses them. The mailbox is in
`XOAUTH2_PROXY_MAILBOX`, and replaces `{mailbox}` in the arguments. The program inherits the relay's
environment, because such programs need HOME, PATH and a keyring, without the variables that
configure the relay.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import time
from contextlib import suppress
from pathlib import PurePath
from typing import TYPE_CHECKING, cast

from xoauth2_proxy.errors import (
    GrantRevoked,
    TokenEndpointRefused,
    TokenEndpointUnavailable,
    TokenError,
)
from xoauth2_proxy.oauth.refreshers.command_output import UnreadableToken, last_line, parse_token

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xoauth2_proxy.oauth.grant import Grant, TokenResponse

MAILBOX_VARIABLE = "XOAUTH2_PROXY_MAILBOX"

_OWN_VARIABLES = "XOAUTH2_PROXY_"
_TIMEOUT_SECONDS = 25.0  # within the 30 s a refresher may take
_GRACE_SECONDS = 1.0  # for what a program that has ended left in its pipes
_MAX_OUTPUT_BYTES = 64 * 1024
_MAX_COMPLAINT_BYTES = 4 * 1024

_STDOUT, _STDERR = 1, 2

_EX_NOPERM = 77  # sysexits.h
_EX_CONFIG = 78  # sysexits.h
_NOT_EXECUTABLE, _NOT_FOUND = 126, 127  # a shell's words, for scripts around other programs
_UNPASSABLE = "the command has an argument that cannot be passed to a program"
_SHORTAGES = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)


class CommandRefresher:
    """Runs `OAuthClient.command` and parses the token that it prints."""

    def __init__(self, timeout_seconds: float = _TIMEOUT_SECONDS) -> None:
        self._timeout_seconds = timeout_seconds

    async def refresh(self, grant: Grant) -> TokenResponse:
        """Return the token that the program printed.

        If the caller is cancelled or the time is up, the program's process group is killed.

        Raises:
            GrantRevoked: it exited with 77 (EX_NOPERM): a person must sign in again.
            TokenEndpointRefused: it cannot be run, or exited with 78 (EX_CONFIG).
            TokenEndpointUnavailable: it failed otherwise, took too long or printed no token.
        """
        words = _words(grant)
        name = PurePath(words[0]).name
        child = await _start_shielded(words, name, grant.mailbox)
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await child.ended()
        except TimeoutError:
            raise TokenEndpointUnavailable(
                f"{name} printed no token in {self._timeout_seconds:g} s"
            ) from None
        finally:
            await child.close()
        return _token_of(child, name)


class _Child(asyncio.SubprocessProtocol):
    """A running program and its output so far, up to the limits."""

    def __init__(self) -> None:
        self.output = bytearray()  # the beginning
        self.complaint = bytearray()  # the end of what it wrote to standard error
        self.status: int | None = None  # None: running; negative: ended by that signal
        self._transport: asyncio.SubprocessTransport | None = None
        self._open = {_STDOUT, _STDERR}
        self._is_over = asyncio.Event()  # it has ended, or printed more than is read
        self._is_silent = asyncio.Event()
        self._is_gone = asyncio.Event()

    @property
    def prints_too_much(self) -> bool:
        """Whether the output is too long for a token."""
        return len(self.output) > _MAX_OUTPUT_BYTES

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.SubprocessTransport", transport)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == _STDERR:
            self.complaint += data
            del self.complaint[:-_MAX_COMPLAINT_BYTES]
        elif not self.prints_too_much:
            self.output += data[: _MAX_OUTPUT_BYTES + 1]
            if self.prints_too_much:
                self._is_over.set()

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        self._open.discard(fd)
        if not self._open:
            self._is_silent.set()

    def process_exited(self) -> None:
        assert self._transport is not None  # noqa: S101 - a program that ends has been started
        self.status = self._transport.get_returncode()
        self._is_over.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_gone.set()

    async def ended(self) -> None:
        """Return when the program has ended and its output is complete.

        A process that it left running, such as a key agent, may keep the pipes open; that is waited
        for only briefly.
        """
        await self._is_over.wait()
        if self.status is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_GRACE_SECONDS):
                    await self._is_silent.wait()

    async def close(self) -> None:
        """Kill the program's process group if it still runs, and close its pipes."""
        transport = self._transport
        assert transport is not None  # noqa: S101 - `_start` returns started programs only
        if self.status is None:
            with suppress(ProcessLookupError):
                os.killpg(transport.get_pid(), signal.SIGKILL)
        transport.close()
        with suppress(TimeoutError):
            # A killed program ends at once, unless it is blocked in the kernel, as by a dead disk.
            async with asyncio.timeout(_GRACE_SECONDS):
                await self._is_gone.wait()


def _words(grant: Grant) -> list[str]:
    if not grant.client.command:
        raise TokenEndpointRefused("no command is configured")
    program, *arguments = grant.client.command
    words = [argument.replace("{mailbox}", grant.mailbox) for argument in arguments]
    for argument, word in zip(arguments, words, strict=True):
        if word.startswith("-") and not argument.startswith("-"):
            raise TokenEndpointRefused(
                "the mailbox's address would be taken for an option of the command"
            )
    if any("\0" in word for word in (program, *words)):  # uvloop would cut the word off there
        raise TokenEndpointRefused(_UNPASSABLE)
    return [program, *words]


async def _start_shielded(words: Sequence[str], name: str, mailbox: str) -> _Child:
    """Return the running program; if the caller is cancelled meanwhile, end it.

    asyncio handles a cancelled start by itself, but kills only the program, not its group, and may
    wait for ever for pipes that are not connected yet. So the start, which is quick, is completed.
    """
    starting = asyncio.create_task(_start(words, name, mailbox))
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        with suppress(TokenError):
            await (await starting).close()
        raise


async def _start(words: Sequence[str], name: str, mailbox: str) -> _Child:
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(_OWN_VARIABLES)
    }
    try:
        _, child = await asyncio.get_running_loop().subprocess_exec(
            _Child,
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**environment, MAILBOX_VARIABLE: mailbox},
            start_new_session=True,  # its own process group, which can be killed as a whole
        )
    except OSError as error:
        kind = TokenEndpointUnavailable if error.errno in _SHORTAGES else TokenEndpointRefused
        raise kind(f"{name} cannot be run: {error.strerror}") from None
    except ValueError:  # a lone surrogate
        raise TokenEndpointRefused(_UNPASSABLE) from None
    return child


def _token_of(child: _Child, name: str) -> TokenResponse:
    if child.prints_too_much:
        raise TokenEndpointUnavailable(f"{name} printed more than {_MAX_OUTPUT_BYTES} octets")
    status, said = child.status or 0, child.complaint.decode("utf-8", "replace")
    try:
        token = parse_token(bytes(child.output), time.time())
    except UnreadableToken as error:
        if status != 0:
            raise _failure(name, status, last_line(said)) from None
        raise TokenEndpointUnavailable(f"{name} printed {error}") from None
    if status != 0:
        # A program that fails may have written the token into its messages too, as with `set -x`.
        raise _failure(name, status, last_line(said, token.access_token))
    return token


def _failure(name: str, status: int, said: str) -> TokenError:
    ending = f"signal {-status}" if status < 0 else f"exit code {status}"
    text = f"{name} ended with {ending}: {said}" if said else f"{name} ended with {ending}"
    if status == _EX_NOPERM:
        return GrantRevoked(text)
    if status in (_EX_CONFIG, _NOT_EXECUTABLE, _NOT_FOUND):
        return TokenEndpointRefused(text)
    return TokenEndpointUnavailable(text)
