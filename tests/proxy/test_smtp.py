"""Replies on the wire and back, paths and parameters: what strangers may write and what not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    reply,
)

# Text that a reply's first blank cannot be mistaken for: no leading blanks, no enhanced code.
_LINES = (
    st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=40)
    .map(lambda text: f"x{text}")
    .filter(lambda text: len(text.encode()) < 500)
)


@st.composite
def replies(draw: st.DrawFn) -> Reply:
    code = draw(st.integers(200, 599))
    detail = f"{draw(st.integers(0, 999))}.{draw(st.integers(0, 999))}"
    has_enhanced = code // 100 != 3 and draw(st.booleans())
    lines = draw(st.lists(_LINES, min_size=1, max_size=5))
    return reply(code, detail if has_enhanced else "", *lines)


@st.composite
def cut(draw: st.DrawFn, octets: bytes) -> list[bytes]:
    """Cut `octets` anywhere."""
    at = sorted(draw(st.lists(st.integers(0, len(octets)), max_size=8)))
    return [octets[start:end] for start, end in zip([0, *at], [*at, len(octets)], strict=True)]


def parsed(*chunks: bytes) -> list[Reply]:
    parser = ReplyParser()
    return [found for chunk in chunks for found in parser.feed(chunk)]


# Replies.


@given(st.data(), st.lists(replies(), min_size=1, max_size=4))
def test_what_is_encoded_is_parsed_back_whatever_the_packets(
    data: st.DataObject, sent: list[Reply]
) -> None:
    octets = b"".join(one.octets for one in sent)
    assert parsed(*data.draw(cut(octets))) == sent


def test_a_reply_cut_at_every_octet_is_the_same_reply() -> None:
    octets = b"250-2.1.5 one\r\n250 2.1.5 two\r\n354 go\r\n"
    whole = parsed(octets)
    assert whole == [Reply(250, "2.1.5", ("one", "two")), Reply(354, "", ("go",))]
    for at in range(len(octets) + 1):
        assert parsed(octets[:at], octets[at:]) == whole
    assert parsed(*(octets[at : at + 1] for at in range(len(octets)))) == whole


def test_lines_are_encoded_with_code_enhanced_code_and_crlf() -> None:
    assert reply(550, "7.1", "a", "b").octets == b"550-5.7.1 a\r\n550 5.7.1 b\r\n"
    assert reply(354, "", "go").octets == b"354 go\r\n"
    assert Reply(250, "", ()).octets == b"250 \r\n"


@given(st.text(st.characters(codec="utf-8"), max_size=60))
def test_text_can_never_break_out_of_its_line(text: str) -> None:
    octets = reply(550, "0.0", text).octets
    assert octets.count(b"\r\n") == octets.count(b"\n") == octets.count(b"\r") == 1
    assert octets.endswith(b"\r\n")
    assert b"\0" not in octets


@pytest.mark.parametrize("character", ["x", "é", "€"])
def test_a_line_of_a_relayed_reply_fits_into_512_octets(character: str) -> None:
    octets = reply(250, "999.999", character * 5000).octets
    assert 500 <= len(octets) <= 512
    assert octets.decode().strip("250 .9\r\n") == character * octets.decode().count(character)


@pytest.mark.parametrize("code", [211, 250, 299])
def test_2yz_is_positive(code: int) -> None:
    assert reply(code, "").is_positive
    assert not reply(code, "").is_transient


def test_4yz_is_transient_and_others_are_neither() -> None:
    assert reply(451, "").is_transient
    assert not reply(451, "").is_positive
    assert not any(reply(code, "").is_positive for code in (354, 554))
    assert not any(reply(code, "").is_transient for code in (354, 554))


def test_an_enhanced_code_of_another_class_is_text() -> None:
    assert parsed(b"550 2.1.5 odd\r\n") == [Reply(550, "", ("2.1.5 odd",))]


def test_a_line_with_another_enhanced_code_keeps_it_as_text() -> None:
    assert parsed(b"550-5.1.1 a\r\n550 5.7.1 b\r\n") == [Reply(550, "5.1.1", ("a", "5.7.1 b"))]


def test_bare_codes_and_lf_line_ends_are_understood() -> None:
    assert parsed(b"250\r\n") == [Reply(250, "", ("",))]
    assert parsed(b"250 2.0.0\r\n") == [Reply(250, "2.0.0", ("",))]
    assert parsed(b"250 ok\n") == [Reply(250, "", ("ok",))]


def test_text_that_is_not_utf8_is_replaced_not_refused() -> None:
    assert parsed(b"250 gr\xfcezi\r\n") == [Reply(250, "", ("gr�ezi",))]


@pytest.mark.parametrize(
    "octets",
    [
        b"\r\n",
        b"25 ok\r\n",
        b"2500 ok\r\n",
        b"250_ok\r\n",
        b"150 ok\r\n",
        b"650 ok\r\n",
        b"abc ok\r\n",
        b" 250 ok\r\n",
        b"+ \r\n",
        b"\x16\x03\x01\n",
        "\uff12\uff15\uff10 ok\r\n".encode(),
        b"250-a\r\n251 b\r\n",
        b"250-a\r\nb\r\n",
    ],
)
def test_what_is_no_reply_is_refused(octets: bytes) -> None:
    with pytest.raises(MalformedReply):
        parsed(octets)


@given(st.lists(st.binary(max_size=30), max_size=5))
def test_any_octets_are_replies_or_refused_in_order(chunks: list[bytes]) -> None:
    try:
        found = parsed(*chunks)
    except MalformedReply:
        return
    assert all(200 <= one.code <= 599 and one.text for one in found)


def test_line_length_is_bounded_finished_or_not() -> None:
    longest = b"250 " + b"x" * (MAX_REPLY_LINE_BYTES - 4)
    assert len(parsed(longest, b"\n")) == 1
    with pytest.raises(MalformedReply):
        parsed(longest + b"x")
    with pytest.raises(MalformedReply):
        parsed(longest + b"x\n")


def test_number_of_lines_is_bounded() -> None:
    lines = b"250-x\r\n" * (MAX_REPLY_LINES - 1)
    assert len(parsed(lines + b"250 x\r\n")) == 1
    with pytest.raises(MalformedReply):
        parsed(lines + b"250-x\r\n250 x\r\n")


def test_parser_says_whether_it_is_in_the_middle_of_a_reply() -> None:
    parser = ReplyParser()
    for octets, is_mid_reply in [
        (b"", False),
        (b"2", True),
        (b"50-a\r\n", True),
        (b"250 b\r\n", False),
        (b"250 a\r\n250-b\r\n", True),
    ]:
        parser.feed(octets)
        assert parser.is_mid_reply is is_mid_reply


def test_str_is_for_the_log() -> None:
    assert str(reply(451, "4.1", "a", "b")) == "451 4.4.1 a b"
    assert str(reply(354, "", "go")) == "354 go"


# Paths.


@pytest.mark.parametrize(
    ("argument", "mailbox", "rest"),
    [
        ("FROM:<a@b.example>", "a@b.example", ""),
        ("from:<a@b.example>", "a@b.example", ""),
        ("FROM: <a@b.example>  SIZE=1 BODY=7BIT ", "a@b.example", "SIZE=1 BODY=7BIT"),
        ("FROM:<>", "", ""),
        ("FROM:<> SIZE=1", "", "SIZE=1"),
        ("FROM:<postmaster>", "postmaster", ""),
        ("FROM:<@relay.example:a@b.example>", "a@b.example", ""),
        ("FROM:<@one.example,@two.example:a@b.example>", "a@b.example", ""),
        ('FROM:<"a b"@c.example>', '"a b"@c.example', ""),
        ('FROM:<"a@b>c"@d.example>', '"a@b>c"@d.example', ""),
        (r'FROM:<"a\"b\\"@c.example>', r'"a\"b\\"@c.example', ""),
        ('FROM:<""@c.example>', '""@c.example', ""),
        ("FROM:<a@[127.0.0.1]>", "a@[127.0.0.1]", ""),
        ("FROM:<a@[IPv6:::1]>", "a@[IPv6:::1]", ""),
        ("FROM:<a+b=c/d@b.example>", "a+b=c/d@b.example", ""),
        ("FROM:<grüße@例え.example> SMTPUTF8", "grüße@例え.example", "SMTPUTF8"),
        ("FROM:a@b", "a@b", ""),
        ("FROM: a@b.example SIZE=1\tBODY=7BIT", "a@b.example", "SIZE=1\tBODY=7BIT"),
        ("FROM:\ta@b.example", "a@b.example", ""),
        ("FROM:a=b@c.example", "a=b@c.example", ""),
        ('FROM:"a b"@c.example SIZE=1', '"a b"@c.example', "SIZE=1"),
        ("FROM:root", "root", ""),
        ("FROM : <a@b.example>", "a@b.example", ""),
    ],
)
def test_path_and_what_follows(argument: str, mailbox: str, rest: str) -> None:
    assert parse_path(argument, "FROM:") == (mailbox, rest)


@pytest.mark.parametrize(
    "argument",
    [
        "",
        "<a@b>",
        "TO:<a@b>",
        "FROM",
        "FROM:",
        "FROM: SIZE=1",
        "FROM:SIZE=1 BODY=7BIT",
        "FROM:a@b,c@d",
        "FROM:@route:a@b",
        "FROM a@b",
        "FROM:<a@b",
        "FROM:a@b>",
        "FROM:<a@b>SIZE=1",
        "FROM:<<a@b>>",
        "FROM:<a b@c>",
        "FROM:<a@b@c>",
        "FROM:<@b>",
        "FROM:<a@>",
        "FROM:<a@b c>",
        "FROM:<a@[1.2.3.4>",
        "FROM:<a@[]>",
        'FROM:<"a@b>',
        'FROM:<"a"b@c>',
        'FROM:<a"b"@c>',
        'FROM:<"a\\"@c>',
        "FROM:<a,b@c>",
        "FROM:<a\\b@c>",
        "FROM:<@route a@b>",
    ],
)
def test_malformed_paths_are_refused(argument: str) -> None:
    with pytest.raises(BadPath):
        parse_path(argument, "FROM:")


@pytest.mark.parametrize("argument", ["FROM:a@b", "FROM: root SIZE=1"])
def test_brackets_may_be_required(argument: str) -> None:
    with pytest.raises(BadPath):
        parse_path(argument, "FROM:", needs_brackets=True)


@pytest.mark.parametrize("control", [chr(code) for code in (*range(32), 127)])
@pytest.mark.parametrize(
    "template", ["<a%sb@c>", '<"a%sb"@c>', "<a@b%sc>", "<a@[1%s2]>", '"a%sb"@c']
)
def test_no_control_gets_into_a_path(control: str, template: str) -> None:
    with pytest.raises(BadPath):
        parse_path("TO:" + template % control, "TO:")


@given(st.text(max_size=60))
def test_a_path_taken_cannot_break_out_of_its_brackets(inner: str) -> None:
    try:
        mailbox, _ = parse_path(f"TO:<{inner}>", "TO:")
    except BadPath:
        return
    assert parse_path(f"TO:<{mailbox}>", "TO:") == (mailbox, "")
    assert not any(ord(character) < 32 or ord(character) == 127 for character in mailbox)


@pytest.mark.parametrize(
    ("longest", "too_long"),
    [
        ("a" * 64 + "@b", "a" * 65 + "@b"),
        ("é" * 32 + "@b", "é" * 33 + "@b"),
        ("a@" + "b" * 252, "a@" + "b" * 253),
        ("a" * 64 + "@" + "b" * 189, "a" * 64 + "@" + "b" * 190),
        ("@" + "r" * 255 + ":a@b", "@" + "r" * 256 + ":a@b"),
    ],
)
def test_lengths_are_counted_in_octets(longest: str, too_long: str) -> None:
    assert parse_path(f"TO:<{longest}>", "TO:")[0] == longest.rpartition(":")[2]
    with pytest.raises(BadPath):
        parse_path(f"TO:<{too_long}>", "TO:")


# Parameters.


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        ("", {}),
        ("SIZE=1", {"SIZE": "1"}),
        ("size=1  Body=8bitMIME", {"SIZE": "1", "BODY": "8bitMIME"}),
        ("SMTPUTF8", {"SMTPUTF8": ""}),
        ("AUTH=<>", {"AUTH": "<>"}),
        ("AUTH=e+3Dmc2@example.com", {"AUTH": "e+3Dmc2@example.com"}),
        ("X-0-y=z", {"X-0-Y": "z"}),
    ],
)
def test_parameters_by_keyword(text: str, parameters: dict[str, str]) -> None:
    assert parse_parameters(text) == parameters


@pytest.mark.parametrize(
    "text", ["=", "=1", "SIZE=", "SIZE=1=2", "-A=1", "A_B=1", "SIZE=1 size=2", "A A", "A=\x01", "é"]
)
def test_malformed_parameters_are_refused(text: str) -> None:
    with pytest.raises(BadParameter):
        parse_parameters(text)
