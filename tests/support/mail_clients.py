"""The mail clients that follow the guide: programs of the distribution, and libraries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.recipes import Recipe

if TYPE_CHECKING:
    from tests.support.desk import Security


@dataclass(frozen=True, slots=True)
class MailClient:
    """A client, by its heading in the guide."""

    name: str
    needs: tuple[str, ...]  # programs, and packages of the distribution
    source: str = ""  # the program of `tests/clients/programs` that the recipe's lines go into
    command: str = ""  # what runs it; "": the recipe's own commands
    composes: bool = True  # it makes the message from its parts, or changes its header
    alters: tuple[str, str] | None = None  # what it writes, and for what
    verifies: bool = True  # the certificate
    adds: bytes = b""  # behind a message that it passes on

    @property
    def securities(self) -> list[Security]:
        """What the guide has a recipe for."""
        if "Implicit TLS" in Recipe.of(self.name).points:
            return ["in clear", "STARTTLS", "implicit TLS"]
        return ["in clear", "STARTTLS"]


_JAVA = """
java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC \\
    -cp /usr/share/java/javax.mail.jar:/usr/share/java/javax.activation.jar Scan.java
"""

# A window that sends what is queued, and is closed when it has or when it has said why not.
_SYLPHEED = """
export TMPDIR=$HOME
cp ca.pem .sylpheed-2.0/certs.crt
cat > .sylpheed-2.0/folderlist.xml <<'END'
<?xml version="1.0" encoding="UTF-8"?>
<folderlist><folder type="mh" name="Mailbox" path="Mail">
<folderitem type="inbox" name="inbox" path="inbox"/>
<folderitem type="outbox" name="sent" path="sent"/>
<folderitem type="draft" name="draft" path="draft"/>
<folderitem type="queue" name="queue" path="queue"/>
<folderitem type="trash" name="trash" path="trash"/>
</folder></folderlist>
END
mkdir -p Mail/inbox Mail/sent Mail/draft Mail/queue Mail/trash
printf 'S:scanner@example.com\\nAID:1\\nR:<someone@example.net>\\n\\n' > Mail/queue/1
cat message.txt >> Mail/queue/1
touch .sylpheed-2.0/sylpheed.log
timeout --kill-after=5 100 xvfb-run --auto-servernum sh -c '
    sylpheed --send > output 2>&1 &
    while [ -e Mail/queue/1 ] && ! grep -q "warning:" .sylpheed-2.0/sylpheed.log; do sleep 0.1; done
    kill -KILL $!  # at a dialog it does not heed another signal
'
cat output .sylpheed-2.0/sylpheed.log
test ! -e Mail/queue/1
"""

MAIL_CLIENTS = [
    MailClient("curl", ("curl",), composes=False),
    MailClient("msmtp", ("msmtp",), composes=False),
    MailClient("swaks", ("swaks",), composes=False, adds=b"\r\n"),
    MailClient("s-nail", ("s-nail",)),
    MailClient("mutt", ("mutt",)),
    MailClient(
        "Sylpheed", ("sylpheed", "xvfb-run"), command=_SYLPHEED, composes=False, verifies=False
    ),
    MailClient("git send-email", ("git", "git-email")),
    MailClient(
        "Python smtplib", (), "smtplib.python", "$PYTHON smtplib.python", alters=(">From", "From")
    ),
    MailClient("Python aiosmtplib", (), "aiosmtplib.python", "$PYTHON aiosmtplib.python"),
    MailClient(
        "yagmail",
        (),
        "yagmail.python",
        "$PYTHON yagmail.python",
        alters=("<br>", "\n"),
        verifies=False,
    ),
    MailClient("PHPMailer", ("php", "libphp-phpmailer"), "phpmailer.php", "php phpmailer.php"),
    MailClient(
        "Symfony Mailer",
        ("php", "php-symfony-mailer"),
        "symfony_mailer.php",
        "php -d openssl.cafile=$HOME/ca.pem symfony_mailer.php",
    ),
    MailClient(
        "Perl Net::SMTP",
        ("perl", "libauthen-sasl-perl", "libio-socket-ssl-perl"),
        "net_smtp.pl",
        "perl net_smtp.pl",
        composes=False,
    ),
    MailClient("Ruby Net::SMTP", ("ruby",), "net_smtp.rb", "ruby net_smtp.rb", composes=False),
    MailClient("JavaMail", ("java", "libmail-java"), "Scan.java", _JAVA),
    MailClient(
        "Go net/smtp", ("go",), "scan.go", "SSL_CERT_FILE=ca.pem go run scan.go", composes=False
    ),
    MailClient("Nodemailer", ("node", "nodemailer"), "nodemailer.cjs", "node nodemailer.cjs"),
]
