"""`xoauth2-bench tokens`: lists, shows, mints and verifies the sandbox's access tokens.

Any user who can read the state directory's key can mint one; only the sandbox accepts it.
I1: no token is printed whole unless that key signed it, and `show` shortens those as well.

Exit codes: 0 done, or every token is valid; 1 one is not; 2 incorrect usage, or no usable key.
"""

# Annotations are read by typer when the command is built, so they stay real objects here.
import base64
import json
import re
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn, cast

import platformdirs
import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from bench.client.login import ClientLogin, Mechanism, initial_response
from bench.commands import token_inspection
from bench.commands.token_inspection import TokenReading
from xoauth2_proxy.sandbox.mock_mailboxes import MOCK_MAILBOXES
from xoauth2_proxy.sandbox.state_directory import load_signing_key
from xoauth2_proxy.sandbox.tokens.mock_tokens import MockTokens

MAX_COUNT = 10_000  # tokens; signing each takes about 20 microseconds
_MAX_SECONDS = 31_536_000.0
_HOUR_SECONDS = 3600.0  # as at providers
_MAX_INPUT_CHARACTERS = 16 << 20
_MAX_TOKEN_CHARACTERS = 16_384
_ELSEWHERE = ("somebody.else@example.com", "another@example.com")
_MAILBOX = re.compile(r"[!-?A-~]+@[!-?A-~]+")  # printable ASCII without blanks

HELP = """List, show, mint and verify access tokens of the sandbox.

They are signed with a key in the state directory and are worthless outside this machine. Tokens
from elsewhere are never printed in full, only their beginning, their length and the claims of a
JWT. Pass tokens on standard input (-) to keep them out of the process list.
"""
# "\b" keeps the lines of a paragraph as they are.
EPILOG = """\b
What an SMTP client has to send after AUTH XOAUTH2:
  xoauth2-bench tokens xoauth2 test.account1@gmail.com

\b
Ten expired tokens, each of which must be refused:
  xoauth2-bench tokens mint --account me@example.com --count 10 --expired |
      xoauth2-bench tokens verify -

Exit codes: 0 success, 1 a token is not valid, 2 incorrect usage.
"""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help=HELP,
    epilog=EPILOG,
)


class TokenMechanism(StrEnum):
    """A SASL mechanism that takes an access token."""

    XOAUTH2 = "xoauth2"
    OAUTHBEARER = "oauthbearer"


StateOption = Annotated[
    Path | None,
    typer.Option(
        "--state-dir",
        metavar="DIR",
        file_okay=False,
        help="State directory of the proxy or sandbox.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")]
TtlOption = Annotated[
    float | None,
    typer.Option(
        "--ttl",
        metavar="SECONDS",
        min=0.1,
        max=_MAX_SECONDS,
        help="Lifetime in seconds. Default: 3600.",
    ),
]
# Arguments are hidden: typer would list this one as "TOKEN|- <list[str]>". The commands' help says
# what they are.
TokensArgument = Annotated[list[str], typer.Argument(metavar="TOKEN|-", hidden=True)]
ForOption = Annotated[
    str | None,
    typer.Option("--for", metavar="MAILBOX", help="Mailbox that the token must belong to."),
]


@app.command("list")
def list_mailboxes(
    *,
    mailboxes: Annotated[list[str] | None, typer.Argument(metavar="MAILBOX", hidden=True)] = None,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the mock mailboxes, then each MAILBOX given. Any other name works as well."""
    tokens = _tokens(state_dir)
    named = [_mailbox(one) for one in mailboxes or ()]
    rows = [
        {
            "mailbox": mailbox,
            "looks_like": token_inspection.looks_like(tokens.mint(mailbox)),
            "is_built_in": mailbox in MOCK_MAILBOXES,
        }
        for mailbox in dict.fromkeys((*MOCK_MAILBOXES, *named))
    ]
    if as_json:
        _print_lines(rows)
        return
    table = Table("mailbox", "tokens look like", "in xoauth2-proxy --sandbox", box=None)
    for row in rows:
        has_password = "yes, with the password: secret" if row["is_built_in"] else "no"
        table.add_row(str(row["mailbox"]), str(row["looks_like"]), has_password)
    Console(highlight=False).print(table)


@app.command("show")
def show(
    *,
    what: Annotated[list[str], typer.Argument(metavar="MAILBOX|TOKEN|-", hidden=True)],
    state_dir: StateOption = None,
    ttl_seconds: TtlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the record of tokens: type, provider, scope, lifetime and claims.

    Tokens are shortened; mint prints them whole. For a mailbox, the token is a new one. -: read
    tokens from standard input, one per line.
    """
    names = [one for one in what if _MAILBOX.fullmatch(one)]
    given = _given([one for one in what if one not in names]) if len(names) < len(what) else []
    tokens = _tokens(state_dir, is_created=bool(names))
    minted = [tokens.mint(name, ttl_seconds=ttl_seconds or _HOUR_SECONDS) for name in names]
    readings = [token_inspection.read(tokens, token) for token in (*minted, *given)]
    if as_json:
        _print_lines([reading.to_json() for reading in readings])
    else:
        _print("\n\n".join(_described(reading) for reading in readings))


@app.command("xoauth2")
def xoauth2(
    *,
    mailbox: Annotated[str, typer.Argument(metavar="MAILBOX", hidden=True)],
    mechanism: Annotated[
        TokenMechanism, typer.Option(help="SASL mechanism.")
    ] = TokenMechanism.XOAUTH2,
    state_dir: StateOption = None,
    ttl_seconds: TtlOption = None,
) -> None:
    """Print the base64 initial response for a login to MAILBOX with a new token."""
    name = _mailbox(mailbox)
    secret = _tokens(state_dir).mint(name, ttl_seconds=ttl_seconds or _HOUR_SECONDS)
    login = ClientLogin(name, Mechanism(mechanism.value), lambda: secret)
    _print(base64.b64encode(initial_response(login, secret)).decode())


@app.command("mint")
def mint(  # noqa: PLR0913 - one parameter an option
    *,
    accounts: Annotated[
        list[str],
        typer.Option("--account", metavar="MAILBOX", help="Mailbox of the token. Repeatable."),
    ],
    count: Annotated[
        int,
        typer.Option(
            metavar="NUMBER", min=1, max=MAX_COUNT, help="Number of tokens for each mailbox."
        ),
    ] = 1,
    ttl_seconds: TtlOption = None,
    is_expired: Annotated[bool, typer.Option("--expired", help="Mint expired tokens.")] = False,
    is_tampered: Annotated[
        bool, typer.Option("--tampered", help="Mint tokens with a wrong signature.")
    ] = False,
    is_wrong_mailbox: Annotated[
        bool, typer.Option("--wrong-mailbox", help="Mint valid tokens for another mailbox.")
    ] = False,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print new tokens, one per line, or tokens that must be refused."""
    if is_expired + is_tampered + is_wrong_mailbox > 1:
        _refuse("--expired", "--expired, --tampered and --wrong-mailbox: give one of them.")
    if is_expired and ttl_seconds is not None:
        _refuse("--ttl", "an expired token has no lifetime; give either --ttl or --expired.")
    names = [_mailbox(one) for one in accounts]
    tokens = _tokens(state_dir)
    ttl = -1.0 if is_expired else ttl_seconds or _HOUR_SECONDS
    for name in names:
        holder = _somebody_but(name) if is_wrong_mailbox else name
        for _ in range(count):
            token = tokens.mint(holder, ttl_seconds=ttl)
            if is_tampered:
                token = token_inspection.tampered(token)
            _print(json.dumps({"account": name, "token": token}) if as_json else token)


@app.command("verify")
def verify(
    *,
    given: TokensArgument,
    mailbox: ForOption = None,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show whether the sandbox accepts each token, and if not, why.

    -: read tokens from standard input, one per line.
    """
    wanted = "" if mailbox is None else _mailbox(mailbox)
    values = _given(given)
    tokens = _tokens(state_dir, is_created=False)
    readings = [token_inspection.read(tokens, value, mailbox=wanted) for value in values]
    for reading in readings:
        verdict = {"is_valid": reading.is_valid, "reason": reading.reason}
        _print(
            json.dumps({"token": reading.shown(), "mailbox": reading.mailbox, **verdict})
            if as_json
            else _verdict(reading)
        )
    raise typer.Exit(0 if all(reading.is_valid for reading in readings) else 1)


def _tokens(state_dir: Path | None, *, is_created: bool = True) -> MockTokens:
    """Return the mint for the directory's key, which is created if `is_created`."""
    directory = state_dir or Path(platformdirs.user_state_dir("xoauth2-proxy"))
    # Verifying with a new key would report every token as forged.
    if not is_created and not directory.is_dir():
        _refuse("--state-dir", f"there is no {directory}, so there is no key.")
    try:
        return MockTokens(load_signing_key(directory))
    except (OSError, ValueError) as error:
        print(f"The key in {directory} cannot be used: {error}", file=sys.stderr)  # noqa: T201
        raise typer.Exit(2) from None


def _given(words: list[str]) -> list[str]:
    """Return the tokens; `-` among the words stands for the lines of standard input."""
    values: list[str] = []
    for word in words:
        values += _lines() if word == "-" else [word]
    if not values:
        _refuse("TOKEN", "there is none on standard input.")
    for value in values:
        if not value.isascii() or not value.isprintable() or " " in value:
            _refuse("TOKEN", "a token contains only ASCII and no blanks.")
        if len(value) > _MAX_TOKEN_CHARACTERS:
            _refuse("TOKEN", f"a token has no more than {_MAX_TOKEN_CHARACTERS} characters.")
    return values


def _lines() -> list[str]:
    try:
        text = sys.stdin.read(_MAX_INPUT_CHARACTERS)
    except UnicodeDecodeError:
        _refuse("TOKEN", "standard input is not text.")
    except OSError as error:
        _refuse("TOKEN", f"standard input cannot be read: {error.strerror}.")
    return [line.strip() for line in text.splitlines() if line.strip()]


def _mailbox(text: str) -> str:
    if not _MAILBOX.fullmatch(text):
        _refuse("MAILBOX", f"{text!r} is not a mail address.")
    return text.lower()


def _somebody_but(mailbox: str) -> str:
    return next(one for one in _ELSEWHERE if one != mailbox)


def _described(reading: TokenReading) -> str:
    lifetime = reading.lifetime_seconds
    record = {
        "token": reading.shortened(),
        "type": token_inspection.TOKEN_TYPE,
        "provider": _harmless(reading.provider),
        "scope": _harmless(reading.scope),
        "lifetime": None if lifetime is None else f"{lifetime:g} s",
        "issued at": reading.issued_at,
        "expires at": reading.expires_at,
    }
    lines = [f"  {name:<10}  {value or 'not stated'}" for name, value in record.items()]
    lines += [
        f"  {_harmless(name[:40]):<10}  {json.dumps(value)}"
        for name, value in reading.claims.items()
    ]
    return "\n".join([_verdict(reading), *lines])


def _harmless(text: str | None) -> str:
    """Return the text with control characters escaped, as JSON does; "" for None."""
    return json.dumps(text)[1:-1] if text is not None else ""


def _verdict(reading: TokenReading) -> str:
    left = reading.seconds_left
    if reading.is_valid:
        return f"valid: {reading.mailbox}, {left or 0.0:.0f} s left"
    if reading.reason == "expired" and left is not None:
        return f"not valid: expired {-left:.0f} s ago ({reading.mailbox})"
    return f"not valid: {reading.told_reason}"


def _print_lines(documents: list[dict[str, object]]) -> None:
    for document in documents:
        _print(json.dumps(document))


def _print(text: str) -> None:
    print(text)  # noqa: T201


def _refuse(parameter: str, reason: str) -> NoReturn:
    raise typer.BadParameter(reason, param_hint=parameter)


def command() -> TyperGroup:
    """Return the sub-command with its own sub-commands."""
    group = typer.main.get_command(app)
    group.name = "tokens"
    return cast("TyperGroup", group)
