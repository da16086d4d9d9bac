"""Mail servers that send through the relay as their smart host, each in a root of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.support import scan
from tests.support.recipes import Recipe

if TYPE_CHECKING:
    from tests.support.desk import Said, Security
    from tests.support.own_root import OwnRoot

_POSTFIX_MAIN = """
compatibility_level = 3.6
myhostname = desk.example
mydestination =
alias_maps =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
maillog_file = /var/log/postfix.log
smtp_host_lookup = native
"""
# Without a service on port 25, which another may have. What is submitted is looked for each second.
_POSTFIX_MASTER = """
pickup unix n - n 1 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


@dataclass(frozen=True, slots=True)
class MailServer:
    """A mail server, by its heading in the guide, and the commands that an administrator types."""

    name: str
    packages: tuple[str, ...]
    users: tuple[str, ...]
    start: str  # what it takes beside the recipe
    submit: str  # followed by recipients; reads the message
    flush: str  # tries all that is queued at once
    queue: str  # shows what is queued
    log: str = ""  # shows what is logged, but not by syslog
    needs_tls: bool = False  # it sends no password in clear
    parts_recipients: bool = True  # one refused recipient is returned, the others get the message
    verifies: bool = True  # the certificate
    keeps_mail: bool = True  # while the password is wrong
    given: dict[str, str] = field(default_factory=dict)  # files, which the recipe adds to

    @property
    def securities(self) -> list[Security]:
        """What the guide has a recipe for."""
        found: list[Security] = [] if self.needs_tls else ["in clear"]
        found.append("STARTTLS")
        if "Implicit TLS" in Recipe.of(self.name).points:
            found.append("implicit TLS")
        return found


MAIL_SERVERS = [
    MailServer(
        "Postfix",
        packages=(),
        users=("postfix", "postdrop"),
        # `postfix start` makes directories too, but it examines each file of Postfix first.
        start="""
            cd /var/spool/postfix
            install --directory --owner=postfix --mode=700 active bounce corrupt defer deferred
            install --directory --owner=postfix --mode=700 flush hold incoming private saved trace
            /usr/lib/postfix/sbin/master -w
        """,
        submit=f"sendmail -i -f {scan.SENDER}",
        flush="postqueue -f",
        queue="mailq",
        log="cat /var/log/postfix.log",
        given={"/etc/postfix/main.cf": _POSTFIX_MAIN, "/etc/postfix/master.cf": _POSTFIX_MASTER},
    ),
    MailServer(
        "Exim",
        packages=("exim4-base", "exim4-config", "exim4-daemon-light"),
        users=("Debian-exim",),
        start="""
            mkdir -p /var/spool/exim4 /var/log/exim4 /var/lib/exim4 /run/exim4
            chown Debian-exim:adm /var/spool/exim4 /var/log/exim4 /run/exim4
            update-exim4.conf
        """,
        submit=f"exim4 -odi -i -f {scan.SENDER}",
        flush="exim4 -qff",
        queue="exim4 -bp",
        log="cat /var/log/exim4/mainlog",
    ),
    MailServer(
        "OpenSMTPD",
        packages=("opensmtpd",),
        users=("opensmtpd", "opensmtpq"),
        start="""
            mkdir -p /var/spool/smtpd
            chmod 711 /var/spool/smtpd
            chgrp opensmtpq /usr/sbin/smtpctl
            chmod 2755 /usr/sbin/smtpctl
            ln -sf smtpctl /usr/sbin/sendmail
            cp /etc/ssl/certs/ca.pem /etc/ssl/certs/ca-certificates.crt
            smtpd
            until smtpctl show status > /dev/null 2>&1; do sleep 0.05; done
        """,
        submit=f"sendmail -i -f {scan.SENDER}",
        flush="smtpctl schedule all",
        queue="smtpctl show queue",
        needs_tls=True,
    ),
    MailServer(
        "sendmail",
        packages=("sendmail-base", "sendmail-bin", "sendmail-cf"),
        users=("smmta", "smmsp"),
        # It runs through its queue each second, on a busy machine too.
        start="""
            mkdir -p /var/lib/sendmail/host_status
            cp /etc/mail/service.switch-nodns /etc/mail/service.switch
            /usr/libexec/sendmail/sendmail -OQueueLA=1000 -OMaxQueueChildren=4 -q1s
        """,
        submit=f"/usr/libexec/sendmail/sendmail -i -odq -f {scan.SENDER}",
        flush="",
        queue="/usr/libexec/sendmail/sendmail -bp",
        needs_tls=True,
        keeps_mail=False,
    ),
    MailServer(
        "nullmailer",
        packages=("nullmailer",),
        users=(),
        start="""
            mkfifo -m 622 /var/spool/nullmailer/trigger
            chown mail /var/spool/nullmailer/trigger
            setsid nullmailer-send > /var/log/nullmailer.log 2>&1 < /dev/null &
        """,
        submit=f"nullmailer-inject -f {scan.SENDER}",
        flush="echo > /var/spool/nullmailer/trigger",
        queue="mailq",
        log="cat /var/log/nullmailer.log",
        parts_recipients=False,
    ),
    MailServer(
        "dma",
        packages=("dma",),
        users=(),
        start="",
        submit=f"dma -i -f {scan.SENDER}",
        flush="dma -q1",
        queue="dma -bp",
        verifies=False,
        keeps_mail=False,
    ),
]


@dataclass(slots=True)
class Running:
    """A mail server that runs by a recipe."""

    server: MailServer
    root: OwnRoot

    async def submit(self, *recipients: str, file: str = "message.txt") -> None:
        """Hand a message over; it is queued then."""
        said = await self.root.type(f"{self.server.submit} {' '.join(recipients)} < {file}")
        assert said.exit_code == 0, said.text + self.root.log

    async def submit_small(self, count: int) -> None:
        """Hand over so many small messages; the subject of each is its number."""
        message = (
            f"From: {scan.SENDER}\\nTo: {scan.RECIPIENT}\\nSubject: number $number\\n\\nGrüße\\n"
        )
        said = await self.root.type(f"""
            for number in $(seq {count}); do
                printf "{message}" | {self.server.submit} {scan.RECIPIENT}
            done
        """)
        assert said.exit_code == 0, said.text + self.root.log

    async def flush(self) -> Said:
        """Have it try again what is queued."""
        return await self.root.type(self.server.flush)

    async def queue(self) -> str:
        """Return what it says of its queue."""
        return (await self.root.type(self.server.queue)).text

    async def log(self) -> str:
        """Return what it has logged."""
        return (await self.root.type(self.server.log)).text + self.root.log
