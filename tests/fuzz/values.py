"""Fuzz targets: everything pure that reads octets of strangers, and the configuration file."""

from __future__ import annotations

import base64
import json
import random
import tempfile
from contextlib import suppress
from pathlib import Path

from tests.fuzz import reference
from xoauth2_proxy.accounts.refresher_info import BUILT_IN_REFRESHERS
from xoauth2_proxy.config import ConfigSource, Overrides
from xoauth2_proxy.errors import ConfigError
from xoauth2_proxy.replies import for_client
from xoauth2_proxy.sandbox.tokens.mock_tokens import MockTokenInvalid, MockTokens
from xoauth2_proxy.smtp import sasl
from xoauth2_proxy.smtp.protocol import (
    MAX_REPLY_LINE_BYTES,
    MAX_REPLY_LINES,
    BadParameter,
    BadPath,
    MalformedReply,
    Reply,
    ReplyParser,
    parse_parameters,
    parse_path,
)

_GOOGLE, _MICROSOFT = "ya29.", "EwAoA8l6BAAURNvFLcaAUzrq"


class _Pure:
    max_bytes = 2000

    def close(self) -> None:
        """Nothing is held."""


class RepliesTarget(_Pure):
    """A provider's replies: cut in any way they are the same, and what is passed on is clean."""

    max_bytes = 12_000

    def check(self, octets: bytes) -> object:
        whole, error = self._parsed([octets])
        cuts = random.Random(len(octets))
        sizes = (1, 2, 13)[len(octets) % 3]
        pieces, at = [], 0
        while at < len(octets):
            size = cuts.randint(1, sizes)
            pieces.append(octets[at : at + size])
            at += size
        in_pieces, error_in_pieces = self._parsed(pieces)
        # Replies in front of a malformed one count only if they came earlier.
        assert in_pieces[: len(whole)] == whole
        assert error == error_in_pieces
        if not error:
            assert in_pieces == whole
        self._compare(octets, in_pieces, error)
        for one in in_pieces:
            encoded = for_client(one).octets
            assert reference.is_well_formed(encoded), encoded
            (again,) = ReplyParser().feed(encoded)
            assert again.is_positive == one.is_positive or one.code in range(300, 400)
        return tuple(one.code for one in whole[:10]), error

    @staticmethod
    def _parsed(pieces: list[bytes]) -> tuple[list[Reply], bool]:
        parser = ReplyParser()
        found: list[Reply] = []
        for piece in pieces:
            try:
                found += parser.feed(piece)
            except MalformedReply:
                return found, True
            assert len(parser._rest) <= MAX_REPLY_LINE_BYTES
            assert len(parser._lines) <= MAX_REPLY_LINES
        return found, False

    @staticmethod
    def _compare(octets: bytes, found: list[Reply], error: bool) -> None:
        expected = []
        with suppress(ValueError):
            while (one := reference.next_reply(octets)) is not None:
                expected.append(one[0].code)
                octets = one[1]
        codes = [one.code for one in found]
        assert codes == (expected[: len(codes)] if error else expected)


class SaslTarget(_Pure):
    """Responses of a client: the first line names the mechanism, the others are its responses."""

    def check(self, octets: bytes) -> object:
        name, _, rest = octets.partition(b"\n")
        names = list(sasl.MECHANISMS)
        mechanism = name.decode("ascii", "replace")
        if mechanism not in sasl.MECHANISMS:
            mechanism = names[sum(name) % len(names)]
        exchange = sasl.MECHANISMS[mechanism]()
        next(exchange)
        try:
            for response in [*rest.split(b"\n"), b"", b""]:
                challenge = exchange.send(response)
                base64.b64encode(challenge)
        except sasl.MalformedResponse:
            return mechanism, "malformed"
        except StopIteration as done:
            return mechanism, self._judge(done.value)
        raise AssertionError("the exchange does not end")

    @staticmethod
    def _judge(credentials: sasl.Credentials) -> str:
        if isinstance(credentials, sasl.PasswordLogin):
            shown = credentials.password
        elif isinstance(credentials, sasl.ChallengeLogin):
            assert len(credentials.digest) == 16
            shown = credentials.digest.hex()
        else:
            shown = credentials.access_token
            assert not any(ord(letter) <= 32 or ord(letter) == 127 for letter in shown)
            with suppress(ValueError):
                # What goes upstream says the same, or it does not go.
                octets = base64.b64decode(sasl.xoauth2_response(credentials.authcid, shown))
                (again,) = _ended(sasl.xoauth2(), octets)
                assert again == credentials
        if len(shown) > 8 and shown not in credentials.authcid:
            assert shown not in repr(credentials)
        return type(credentials).__name__


def _ended(exchange: sasl.Exchange, octets: bytes) -> list[sasl.Credentials]:
    next(exchange)
    try:
        exchange.send(octets)
    except StopIteration as done:
        return [done.value]
    return []


class PathTarget(_Pure):
    """Arguments of MAIL and RCPT: what is accepted is one path, for the provider as well."""

    def check(self, octets: bytes) -> object:
        text = octets.decode("utf-8", "replace")
        keyword = "TO:" if text[:2].upper() == "TO" else "FROM:"
        try:
            mailbox, rest = parse_path(text, keyword)
        except BadPath:
            return "bad path"
        command = f"RCPT TO:<{mailbox}>\r\n".encode()
        assert not any(octet < 32 or octet == 127 for octet in command[:-2])
        assert len(command) <= 512
        assert reference.path_in(command) == mailbox.encode()
        assert parse_path(f"{keyword}<{mailbox}>", keyword) == (mailbox, "")
        try:
            parameters = parse_parameters(rest)
        except BadParameter:
            return "bad parameter"
        for key, value in parameters.items():
            assert key == key.upper()
            assert not set(key + value) & set(" =\r\n\0\t")
        return "good", bool(mailbox), len(parameters)


class TokenTarget(_Pure):
    """Mock tokens: nothing but what was minted opens a mailbox.

    HEADER, PAYLOAD and SIGNATURE in an input stand for the parts of a token that is good.
    """

    _KEY = b"k" * 32

    def __init__(self) -> None:
        self._tokens = MockTokens(self._KEY)
        self._minted = self._tokens.mint("a@gmail.com")
        parts = self._minted.removeprefix(_GOOGLE).split(".")
        self._parts = dict(zip(("HEADER", "PAYLOAD", "SIGNATURE"), parts, strict=True))

    def check(self, octets: bytes) -> object:
        token = octets.decode("utf-8", "replace")
        for word, part in self._parts.items():
            token = token.replace(word, part)
        try:
            claims = self._tokens.read(token)
        except MockTokenInvalid as error:
            return error.reason
        header, payload, _ = token.removeprefix(_GOOGLE).removeprefix(_MICROSOFT).split(".")
        assert [header, payload] == list(self._parts.values())[:2]
        assert claims.mailbox == "a@gmail.com"
        return "valid"


class ConfigTarget(_Pure):
    """A configuration file: it loads, or every problem has a place and no secret."""

    max_bytes = 4000

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="fuzz-config-")
        self._file = Path(self._directory.name) / "accounts.json"

    def close(self) -> None:
        self._directory.cleanup()

    def check(self, octets: bytes) -> object:
        if b"dev/" in octets or b"proc/" in octets:  # files that never end
            return "left out"
        self._file.write_bytes(octets)
        try:
            config = ConfigSource(
                self._file, Overrides(sandbox=True), Path(self._directory.name)
            ).load(BUILT_IN_REFRESHERS, {"SECRET": "secret-43"})
        except ConfigError as error:
            return self._judge(octets, error.problems)
        assert "secret-4" not in repr(config)
        return "loads", len(config.accounts)

    @staticmethod
    def _judge(octets: bytes, problems: list[tuple[str, str]]) -> object:
        assert problems
        said = json.dumps(problems)
        assert "secret-43" not in said
        # A misplaced word may be named as a key or a number of a path; a value never is.
        if octets.count(b"secret-42") == octets.count(b'"password": "secret-42"'):
            assert "secret-42" not in said, said
        return "problems", frozenset(problem[:12] for _, problem in problems)
