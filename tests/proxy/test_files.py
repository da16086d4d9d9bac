"""Files that appear whole, directories for one user, and locks."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from xoauth2_proxy.files import (
    locked,
    private_directory,
    replace_durably,
    state_directory_problem,
    try_lock,
    unlock,
    written_beside,
)

if TYPE_CHECKING:
    from pathlib import Path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("wanted", [0o600, 0o644])
def test_a_replaced_file_has_the_new_octets_and_mode(tmp_path: Path, wanted: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old and longer")
    replace_durably(path, b"new", wanted)
    assert path.read_bytes() == b"new"
    assert mode(path) == wanted
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_sees_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a" * 100_000)
    is_over = threading.Event()
    seen = set()

    def read() -> None:
        while not is_over.is_set():
            octets = path.read_bytes()
            seen.add((len(octets), len(set(octets))))

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(200):
        replace_durably(path, b"ab"[number % 2 :][:1] * 100_000)
    is_over.set()
    reader.join()
    assert seen == {(100_000, 1)}


def test_a_temporary_file_is_gone_when_something_fails(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), written_beside(tmp_path / "file", b"secret", 0o600):  # noqa: PT012
        assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"secret"]
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_missing_directory_is_made_with_its_parents(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        private_directory(tmp_path / "a" / "b")
    finally:
        os.umask(before)
    assert mode(tmp_path / "a") == mode(tmp_path / "a" / "b") == 0o700
    private_directory(tmp_path / "a" / "b")


def test_a_directory_may_be_reached_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("real")
    private_directory(tmp_path / "link")


@pytest.mark.parametrize("bits", [0o710, 0o704, 0o777])
def test_an_open_directory_is_refused_with_what_to_type(tmp_path: Path, bits: int) -> None:
    directory = tmp_path / "my grants"
    directory.mkdir()
    directory.chmod(bits)
    with pytest.raises(PermissionError) as caught:
        private_directory(directory)
    _, _, command = str(caught.value).rpartition(": ")
    subprocess.run(command, shell=True, check=True)
    assert mode(directory) == 0o700
    private_directory(directory)


def test_a_file_in_the_directorys_place_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "grants").write_bytes(b"")
    with pytest.raises(OSError, match="grants"):
        private_directory(tmp_path / "grants")


def test_one_at_a_time_has_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first = try_lock(path)
    assert first is not None
    assert try_lock(path) is None
    unlock(first)
    with locked(path):
        assert try_lock(path) is None
    again = try_lock(path)
    assert again is not None
    unlock(again)
    assert mode(path) == 0o600


def test_a_lock_is_free_though_a_program_that_was_started_has_a_copy(tmp_path: Path) -> None:
    descriptor = try_lock(tmp_path / "lock")
    assert descriptor is not None
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"],
        pass_fds=[descriptor],
        stdin=subprocess.PIPE,
    ) as child:
        unlock(descriptor)
        again = try_lock(tmp_path / "lock")
        child.communicate()
    assert again is not None
    unlock(again)


class TestStateDirectory:
    """Whether what must not be lost can be kept there, told before anything has to be."""

    @pytest.mark.parametrize("name", ["state", "not/yet/there"])
    def test_one_that_is_ours_or_can_be_made_is_no_problem(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "state").mkdir(mode=0o700)
        assert state_directory_problem(tmp_path / name) is None
        assert not (tmp_path / "not").exists(), "it was looked at, and not made"

    def test_one_open_to_others_is_told_with_the_command_that_closes_it(
        self, tmp_path: Path
    ) -> None:
        (tmp_path / "state").mkdir(mode=0o755)
        problem = state_directory_problem(tmp_path / "state")
        assert problem == f"{tmp_path}/state is open to other users: chmod 700 {tmp_path}/state"

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
    def test_another_users_is_told_with_whose_it_is(self, tmp_path: Path) -> None:
        (tmp_path / "state").mkdir(mode=0o700)
        os.chown(tmp_path / "state", 12345, -1)
        problem = state_directory_problem(tmp_path / "state")
        assert problem is not None
        assert "belongs to another user (its id is 12345)" in problem

    @pytest.mark.parametrize("name", ["state", "not/yet/there"])
    def test_a_read_only_one_is_told(
        self, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "state").mkdir(mode=0o700)
        # Taken away by hand: a superuser may write everywhere whatever the mode.
        monkeypatch.setattr("os.access", lambda *_: False)
        problem = state_directory_problem(tmp_path / name)
        assert problem is not None
        assert "cannot be written" in problem
        assert "--state-dir" in problem

    def test_a_file_in_its_place_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "state").write_text("x")
        problem = state_directory_problem(tmp_path / "state" / "tokens")
        assert problem == f"{tmp_path}/state is not a directory"
