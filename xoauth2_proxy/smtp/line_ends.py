"""Makes every line end of a message's content a CRLF, over chunks of any size.

No I/O. Only content in which a bare CR or LF was seen comes here.
I1: what comes out has no bare CR or LF, whatever goes in.
I2: what comes out does not depend on how the content was cut into chunks.
I3: in stuffed content (RFC 5321 §4.5.2) no line comes out as a lone dot, which would end it.
"""

from __future__ import annotations

import re

# RFC 5321 §4.5.3.1.6: the octets of a line, its end included. So many CRs in a row are no text.
MAX_CRS = 1000

# Each run of CRs is looked at once: without the look-behind, a long one without LF would be
# searched from each of its CRs.
_CRS_BEFORE_LF = re.compile(rb"(?<!\r)\r+\n")
# A single dot behind a line end that is no CRLF. A client that takes LF for a line end and stuffs
# would have sent two, so this one stuffs nothing.
_DOT_AFTER_BARE_END = re.compile(rb"((?<!\r)\n|\r\r\n)\.(?=[^.])")
# A line that is a lone dot, and whose own end is no CRLF.
_LONE_DOT = re.compile(rb"\r\n\.(?=\n|\r\r+\n)")


class TooManyCrs(ValueError):
    """There are `MAX_CRS` CRs in a row."""


class LineEnds:
    """Rewrites line ends: LF and any CRs before it become CRLF, any other CR becomes a space.

    This is what Postfix does (`smtpd_forbid_bare_newline = normalize`,
    `cleanup_replace_stray_cr_lf`). A space can begin no header field.
    """

    __slots__ = ("_behind", "_crs", "_is_stuffed", "repaired_bytes")

    def __init__(self, clean_bytes: int, behind: bytes, *, is_stuffed: bool) -> None:
        """`clean_bytes` came before; `behind` is the last of them, and does not end with CR."""
        self.repaired_bytes = clean_bytes  # of the content so far, as it leaves
        self._is_stuffed = is_stuffed
        self._behind = _line_start(behind) if is_stuffed else b""
        self._crs = 0  # at the end of what was fed; what they are depends on what follows

    def feed(self, chunk: bytes) -> bytes:
        """Return what the next octets become. Raises `TooManyCrs`."""
        octets = self._behind + b"\r" * self._crs + chunk
        body = octets.rstrip(b"\r")
        self._crs = len(octets) - len(body)
        if self._crs >= MAX_CRS or b"\r" * MAX_CRS in body:
            raise TooManyCrs
        behind, skipped = self._behind, 0
        if self._is_stuffed:
            self._behind = _line_start(body)
            if b"." in body:
                body = _DOT_AFTER_BARE_END.sub(rb"\1..", body)
                body = _LONE_DOT.sub(b"\r\n..", body)
            skipped = len(behind) + (behind[:1] == b"\n")  # as CRLF it is one octet longer
        body = body.replace(b"\r\n", b"\n")
        if b"\r" in body:
            body = _CRS_BEFORE_LF.sub(b"\n", body).replace(b"\r", b" ")
        repaired = body.replace(b"\n", b"\r\n")[skipped:]
        self.repaired_bytes += len(repaired)
        return repaired

    def finish(self) -> bytes:
        """Return what the CRs at the very end become: with the LF that is missing, a line end."""
        repaired = b"\r\n" if self._crs else b""
        self._crs = 0
        self.repaired_bytes += len(repaired)
        return repaired


def _line_start(octets: bytes) -> bytes:
    """Return the line end, and the dot behind it, with which `octets` end; b"" in mid-line.

    The line end is CRLF if it is exactly that, else LF.
    """
    line, dot = (octets[:-1], b".") if octets.endswith(b".") else (octets, b"")
    if not line.endswith(b"\n"):
        return b""
    is_clean = line.endswith(b"\r\n") and not line.endswith(b"\r\r\n")
    return (b"\r\n" if is_clean else b"\n") + dot
