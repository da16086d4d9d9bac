"""A real mail server that speaks XOAUTH2: Postfix, with Dovecot judging the tokens by itself.

Dovecot verifies each token's signature with the identity provider's public key; Postfix delivers
into one Maildir. Both are Debian's, with settings and a port of their own; both want root.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest

from tests.support.programs import program
from tests.support.waiting import PATIENCE_SECONDS, until

if TYPE_CHECKING:
    from types import TracebackType

    import trustme

_DOVECOT = """
protocols =
base_dir = {home}/run
state_dir = {home}/run
log_path = {home}/dovecot.log
ssl = no
auth_mechanisms = xoauth2 oauthbearer
auth_failure_delay = 0
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
passdb {{
  driver = oauth2
  mechanisms = xoauth2 oauthbearer
  args = {home}/oauth2.conf.ext
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home={home}/mail
}}
service auth {{
  unix_listener {home}/auth {{
    mode = 0666
  }}
}}
"""

_OAUTH2 = """
introspection_mode = local
local_validation_key_dict = fs:posix:prefix={home}/keys/
issuers = {issuer}
username_attribute = email
"""

_MAIN = """
compatibility_level = 3.6
queue_directory = {home}/queue
data_directory = {home}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = {home}/postfix.log
maillog_file_prefixes = {home}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = mail.example.test
mydestination =
virtual_mailbox_domains = example.test
virtual_mailbox_base = {home}/mail
virtual_mailbox_maps = static:inbox/
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
virtual_minimum_uid = 1
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = {home}/auth
smtpd_sasl_security_options = noanonymous
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_tls_security_level = may
smtpd_tls_auth_only = yes
smtpd_tls_chain_files = {home}/server.pem
smtp_tls_security_level = none
alias_maps =
alias_database =
"""

_MASTER = """
127.0.0.1:{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""


@dataclass(slots=True)
class MailServer:
    """The server, from its start to its end; it accepts tokens of one issuer."""

    authority: trustme.CA
    issuer: str
    key_id: str
    public_key_pem: str = field(repr=False)
    host: str = "localhost"
    port: int = 0
    _home: Path = field(default_factory=Path)
    _dovecot: asyncio.subprocess.Process | None = None

    @property
    def ca_file(self) -> Path:
        return self._home / "ca.pem"

    @property
    def received(self) -> list[bytes]:
        """The messages in the Maildir, in no order."""
        return [file.read_bytes() for file in (self._home / "mail" / "inbox" / "new").glob("*")]

    @property
    def log(self) -> str:
        return "".join(
            (self._home / name).read_text()
            for name in ("dovecot.log", "postfix.log")
            if (self._home / name).exists()
        )

    async def __aenter__(self) -> Self:
        programs = program("postfix"), program("dovecot")
        if os.geteuid() != 0:
            reason = "Postfix and Dovecot want to be started by root"
            if os.environ.get("CI") == "true":
                pytest.fail(reason)
            pytest.skip(reason)
        # Not under pytest's own directory: the path of a socket has 107 characters at most.
        self._home = Path(tempfile.mkdtemp(prefix="mta-", dir="/tmp"))
        self._write()
        postfix, dovecot = programs
        try:
            self._dovecot = await asyncio.create_subprocess_exec(
                *(dovecot, "-F", "-c", str(self._home / "dovecot.conf")),
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
            )
            await until((self._home / "auth").exists)
            await _run(postfix, "-c", str(self._home / "postfix"), "start")
            await until(self._answers)
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stop()

    def _write(self) -> None:
        home = self._home
        home.chmod(0o755)
        for folder in ("run", "queue", "data", "mail", "postfix"):
            (home / folder).mkdir()
        shutil.chown(home / "data", "postfix")
        shutil.chown(home / "mail", "nobody")
        keys = home / "keys" / "default" / "RS256"
        keys.mkdir(parents=True)
        (keys / self.key_id).write_text(self.public_key_pem)
        self.authority.cert_pem.write_to_path(self.ca_file)
        issued = self.authority.issue_cert(self.host)
        issued.private_key_and_cert_chain_pem.write_to_path(home / "server.pem")
        (home / "server.pem").chmod(0o600)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        texts = {
            "dovecot.conf": _DOVECOT,
            "oauth2.conf.ext": _OAUTH2,
            "postfix/main.cf": _MAIN,
            "postfix/master.cf": _MASTER,
        }
        for name, text in texts.items():
            written = text.format(home=home, issuer=self.issuer, port=self.port)
            (home / name).write_text(written.lstrip())

    async def _answers(self) -> bool:
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.close()
            await writer.wait_closed()
            return True
        return False

    async def _stop(self) -> None:
        # Not by `postfix stop`, which looks once a second whether it has ended.
        with suppress(FileNotFoundError, ProcessLookupError):
            master = int((self._home / "queue" / "pid" / "master.pid").read_text())
            os.kill(master, signal.SIGTERM)
            await until(lambda: _has_ended(master))
        if self._dovecot is not None:
            with suppress(ProcessLookupError):
                self._dovecot.terminate()
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._dovecot.wait()
        shutil.rmtree(self._home, ignore_errors=True)


def _has_ended(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"  # whoever adopted it may look after it later


async def _run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert await process.wait() == 0, command
