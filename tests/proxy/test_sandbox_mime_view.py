"""Messages as people read them, whatever somebody sent."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xoauth2_proxy.sandbox.web.mime_view import MAX_READ_BYTES, frame_document, read, subject_of

MIXED = (
    b"From: =?utf-8?q?J=C3=BCrgen?= <j@example.org>\r\n"
    b"Subject: =?utf-8?b?R3LDvMOfZQ==?=\r\n\tfrom afar\r\n"
    b"Content-Type: multipart/mixed; boundary=x\r\n\r\npreamble\r\n"
    b"--x\r\nContent-Type: text/plain; charset=iso-8859-1\r\n"
    b"Content-Transfer-Encoding: quoted-printable\r\n\r\nGr=FC=DFe\r\n"
    b"--x\r\nContent-Type: text/html\r\n\r\n<script>alert(1)</script>\r\n"
    b"--x\r\nContent-Type: application/pdf; name=a.pdf\r\n"
    b"Content-Disposition: attachment; filename*=utf-8''b%C3%A4.pdf\r\n"
    b"Content-Transfer-Encoding: base64\r\n\r\nAAECAw==\r\n--x--\r\n"
)


def test_fields_and_parts_are_decoded() -> None:
    reading = read(MIXED)
    assert dict(reading.fields)["Subject"] == "Grüße from afar"
    assert dict(reading.fields)["From"] == "Jürgen <j@example.org>"
    plain, html, pdf = reading.parts
    assert (plain.kind, plain.text) == ("text/plain", "Grüße")
    assert (html.kind, html.text) == ("text/html", "<script>alert(1)</script>")
    assert (pdf.kind, pdf.name, pdf.size_bytes, pdf.text) == ("application/pdf", "bä.pdf", 4, None)
    assert (reading.is_cut, reading.source) == (False, "")


def test_the_subject_is_found_near_the_top() -> None:
    assert subject_of(MIXED) == "Grüße from afar"
    assert subject_of(b"X: 1\r\n\r\nSubject: not mine\r\n") == ""
    assert subject_of(b"X: " + b"x" * 20_000 + b"\r\nSubject: too far\r\n\r\n") == ""
    assert subject_of(b"") == ""


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (b"\xc3\xa4\xff", "ä\N{REPLACEMENT CHARACTER}"),
        (b"=?nonsense?q?a?=", "=?nonsense?q?a?="),
        (b"=?utf-8?b?@@@?=", "=?utf-8?b?@@@?="),
        (b"a" * 5000, "a" * 2000),
    ],
)
def test_a_strange_subject_is_shown_as_well_as_can_be(line: bytes, shown: str) -> None:
    assert subject_of(b"Subject: " + line + b"\r\n\r\n") == shown


@pytest.mark.parametrize("charset", ["nonsense", "\xfc", "idna", "base64", "unicode_escape"])
def test_an_unusable_character_set_keeps_no_text_back(charset: str) -> None:
    content = f"Content-Type: text/plain; charset={charset}\r\n\r\nhello\r\n".encode("latin-1")
    (part,) = read(content).parts
    assert part.text is not None
    assert "hello" in part.text


def test_a_long_message_is_cut() -> None:
    reading = read(b"Subject: a\r\n\r\n" + b"x" * (2 * MAX_READ_BYTES))
    assert reading.is_cut
    assert reading.parts[0].text == "x" * 200_000


def test_many_fields_and_parts_are_cut() -> None:
    assert len(read(b"X: 1\r\n" * 1000 + b"\r\n").fields) == 200
    parts = b"--x\r\n\r\na\r\n" * 500
    reading = read(b"Content-Type: multipart/mixed; boundary=x\r\n\r\n" + parts)
    assert len(reading.parts) == 100
    assert reading.is_cut


def test_what_cannot_be_taken_apart_is_shown_as_it_came() -> None:
    nested = b"Content-Type: message/rfc822\r\n\r\n" * 3000
    reading = read(nested)
    assert reading.source.startswith("Content-Type: message/rfc822")
    assert reading.parts == ()


def test_html_begins_with_a_policy_that_lets_nothing_be_loaded() -> None:
    html = frame_document(
        "<!DOCTYPE html><html><head><title>x</title></head><p style='color: red'>y"
    )
    policy = html.partition('content="')[2].partition('"')[0]
    assert html.startswith(
        '<!DOCTYPE html><meta http-equiv="Content-Security-Policy" content="default-src'
    )
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules == {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": "'unsafe-inline'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert html.endswith("<p style='color: red'>y")


@pytest.mark.parametrize(
    "tag",
    [
        "<link rel=preconnect href=//a>",
        "<LINK/rel=dns-prefetch href=//a>",
        "<svg><link\n></svg>",
        "<meta http-equiv=refresh content='0;url=//a'>",
        "<base\thref=//a>",
        "<<link>",
        "<iFrame src=//a>",
        "<frameset><frame src=//a></frameset>",
        "<object data=//a>",
        "<embed/src=//a>",
    ],
)
def test_what_no_policy_governs_is_renamed(tag: str) -> None:
    rest = frame_document(tag).partition('<base target="_blank">')[2].lower()
    assert "<x-" in rest
    kinds = ("link", "meta", "base", "frame", "iframe", "object", "embed")
    assert not any(f"<{kind}" in rest for kind in kinds)
    assert frame_document("<linked><p>a < link</p>").endswith("<linked><p>a < link</p>")


@pytest.mark.parametrize("attribute", ["target=_self", "TARGET\n= '_self'", "target =_top"])
def test_no_link_chooses_where_it_opens(attribute: str) -> None:
    rest = frame_document(f"<a href=//a {attribute}>").partition('<base target="_blank">')[2]
    assert rest.lower().startswith("<a href=//a x-target")


FRAGMENTS = st.sampled_from(
    [
        *(b"Content-Type: ", b"multipart/mixed; boundary=x", b"text/plain; charset=", b"\r\n"),
        *(b"--x\r\n", b"--x--", b"message/rfc822", b"Subject: ", b"=?utf-8?q?", b"?=", b'"', b";"),
        *(b"Content-Transfer-Encoding: ", b"base64", b"quoted-printable", b"\0", b"\xff", b"*0*="),
        *(b"Content-Disposition: attachment; filename", b"*=utf-8''%zz", b"uuencode", b"begin 6"),
    ]
)


@given(st.lists(FRAGMENTS | st.binary(max_size=20), max_size=60).map(b"".join))
def test_nothing_that_was_sent_breaks_it(content: bytes) -> None:
    reading = read(content)
    assert sum(len(part.text or "") for part in reading.parts) <= 200_000
    texts = [subject_of(content), reading.source, *(value for _, value in reading.fields)]
    texts += [part.name for part in reading.parts] + [part.text or "" for part in reading.parts]
    for text in texts:
        text.encode()  # can be sent in a page


@given(st.text(string.printable, max_size=200))
def test_a_plain_text_stays_what_it_is(text: str) -> None:
    body = "\r\n".join(text.splitlines()).encode()
    (part,) = read(b"X: 1\r\n\r\n" + body).parts
    assert part.text == body.decode().replace("\r\n", "\n")
