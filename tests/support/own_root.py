"""A root directory of its own: this machine's, with packages of Debian laid over it.

Mail servers have fixed paths, users and directories, and as packages they exclude one another. In
an overlay and a mount namespace each can have all of it, and this machine keeps what it has. The
processes have a namespace too, so all of them end with the root directory. The network is shared.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest

from tests.support.desk import Said
from tests.support.waiting import PATIENCE_SECONDS

if TYPE_CHECKING:
    from types import TracebackType

PACKAGES = Path(__file__).parents[1] / "clients" / "packages"

# Its arguments: a directory, and packages. A file system in memory holds all that is written.
_MAKE = r"""
set -eu
base=$1
shift
hostname desk.example
mount -t tmpfs -o mode=755 none "$base"
cd "$base"
mkdir upper work root
for name in bin lib lib32 lib64 libx32 sbin; do
    if [ -L "/$name" ]; then
        mkdir -p "upper/usr/$name"
        ln -s "usr/$name" "upper/$name"
    fi
done
for package; do
    dpkg-deb --fsys-tarfile "$package" | tar --extract --keep-directory-symlink --directory upper
done
mount -t overlay -o lowerdir=/,upperdir=upper,workdir=work none root
mount -t proc none root/proc
for name in dev run tmp; do mount -t tmpfs -o mode=1777 none "root/$name"; done
for name in full null random urandom zero; do
    touch "root/dev/$name"
    mount --bind "/dev/$name" "root/dev/$name"
done
ln -s /proc/self/fd root/dev/fd
touch root/.own
exec chroot root /bin/sh -c "echo made; exec sleep infinity"
"""

# Some mail servers would not send to an address of their own host.
_HOSTS = """
127.0.0.1 localhost
127.0.0.2 relay.example
127.0.1.1 desk.example desk
"""


@dataclass(slots=True)
class OwnRoot:
    """The root directory and what runs in it, from its start to its end."""

    packages: tuple[str, ...] = ()  # as `.ci/clients` downloads them
    users: tuple[str, ...] = ()  # each has a group of its name
    _base: Path = field(default_factory=Path)
    _keeper: asyncio.subprocess.Process | None = None
    _pid: int = 0  # of the first process in it, as this machine counts
    _log: list[str] = field(default_factory=list)
    _log_socket: socket.socket | None = None

    @property
    def path(self) -> Path:
        """Where the root directory can be seen from outside."""
        return Path(f"/proc/{self._pid}/root")

    @property
    def log(self) -> str:
        """What the programs have told syslog."""
        return "\n".join(self._log)

    async def __aenter__(self) -> Self:
        files = [_package(name) for name in self.packages]
        self._base = Path(tempfile.mkdtemp(prefix="own-root-"))
        try:
            await self._start(files)
            self._populate()
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

    async def type(self, commands: str) -> Said:
        """Have a shell in it carry out commands, to their end."""
        # Not through a pipe: uvloop's children inherit more than their streams, so a daemon that is
        # started here would keep it open.
        with tempfile.TemporaryFile() as output:
            process = await asyncio.create_subprocess_exec(
                *(
                    "nsenter",
                    "--target",
                    str(self._pid),
                    "--mount",
                    "--uts",
                    "--pid",
                    "--root",
                    "--wd",
                ),
                *("/bin/sh", "-eu", "-c", f"cd /root\n{commands}"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={
                    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                    "LC_ALL": "C.UTF-8",
                    "HOME": "/root",
                },
            )
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    exit_code = await process.wait()
            except BaseException:
                with suppress(ProcessLookupError):  # it has ended meanwhile
                    process.kill()
                await process.wait()
                raise
            output.seek(0)
            return Said(output.read().decode("utf-8", "replace"), exit_code)

    def write(self, path: str, text: str | bytes, mode: int = 0o644) -> None:
        """Write a file, by its path within."""
        file = self.path / path.removeprefix("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        file.chmod(mode)

    async def _start(self, files: list[Path]) -> None:
        self._keeper = await asyncio.create_subprocess_exec(
            *("unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child"),
            *("/bin/sh", "-c", _MAKE, "sh", str(self._base), *map(str, files)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert self._keeper.stdout is not None
        assert self._keeper.stderr is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            if await self._keeper.stdout.readline() != b"made\n":
                said = (await self._keeper.stderr.read()).decode()
                # No package would mend this, so it is no failure of CI either.
                pytest.skip(f"no root directory can be made here: {said.strip()}")
        self._pid = _child(self._keeper.pid)

    def _populate(self) -> None:
        assert (self.path / ".own").exists(), "nothing may be written into another"
        for number, user in enumerate(self.users, 61_300):
            for name, line in (
                ("passwd", f"{user}:x:{number}:{number}::/nonexistent:/usr/sbin/nologin"),
                ("group", f"{user}:x:{number}:"),
            ):
                file = self.path / "etc" / name
                text = file.read_text()
                if f"\n{user}:" not in text:
                    file.write_text(f"{text}{line}\n")
        self.write("/etc/hosts", _HOSTS)
        # No name is asked for outside.
        self.write(
            "/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\nservices: files\n"
        )
        self.write("/etc/resolv.conf", "nameserver 127.0.0.1\noptions attempts:1 timeout:1\n")
        self.write("/etc/mailname", "desk.example\n")
        self._log_socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._log_socket.setblocking(False)
        self._log_socket.bind(str(self.path / "dev" / "log"))
        (self.path / "dev" / "log").chmod(0o666)
        asyncio.get_running_loop().add_reader(self._log_socket, self._read_log)

    def _read_log(self) -> None:
        assert self._log_socket is not None
        with suppress(BlockingIOError):
            self._log.append(self._log_socket.recv(65_536).decode("utf-8", "replace"))

    async def _stop(self) -> None:
        if self._log_socket is not None:
            asyncio.get_running_loop().remove_reader(self._log_socket)
            self._log_socket.close()
        if self._keeper is not None:
            with suppress(ProcessLookupError):
                self._keeper.kill()
            # Also reads what is left in the pipes.
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._keeper.communicate()
        shutil.rmtree(self._base, ignore_errors=True)


def _child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def _package(name: str) -> Path:
    if os.geteuid() != 0:
        _unavailable("only root can make a root directory")
    found = sorted(PACKAGES.glob(f"{name}_*.deb"))
    if not found:
        _unavailable(f"the package {name} was not downloaded: .ci/clients does it")
    return found[-1]


def _unavailable(reason: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
