from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from bench.reports.atomic_write import write_atomically

if TYPE_CHECKING:
    from pathlib import Path


def test_what_is_there_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text("old")
    write_atomically(b"new", path)
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["run.json"]


def test_a_link_stays_and_leads_to_what_was_written(tmp_path: Path) -> None:
    target, link = tmp_path / "target.json", tmp_path / "link.json"
    target.write_text("old")
    link.symlink_to(target)
    write_atomically(b"new", link)
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_a_pipe_is_written_to_and_stays_one(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_atomically(b"new", pipe)
        assert os.read(reader, 10) == b"new"
    finally:
        os.close(reader)
    assert pipe.is_fifo()


def test_a_full_device_is_an_error_and_stays_a_device(tmp_path: Path) -> None:
    link = tmp_path / "full"
    link.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        write_atomically(b"new", link)
    assert link.is_char_device()


def test_a_file_that_cannot_be_written_is_as_it_was(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomically(b"new", tmp_path / "no" / "such" / "folder")
    assert os.listdir(tmp_path) == []
