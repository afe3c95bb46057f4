import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture
def folder():
    """A folder that every user can reach, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as path:
        Path(path).chmod(0o755)
        yield Path(path)


def write_as_owner(folder):
    """Write a file into the folder with a command started by root; return what it prints."""
    command = ["sh", "-c", "echo $(id -u) $(id -G); touch model"]
    return subprocess.run(
        [sys.executable, "-m", "training.as_owner", folder, "env", "-C", folder, *command],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        umask=0o077,
    ).stdout


@pytest.mark.skipif(os.getuid() != 0, reason="only root can switch to another user")
def test_root_becomes_the_owner_and_writes_files_readable_by_all(folder):
    os.chown(folder, 1234, 2345)
    assert write_as_owner(folder) == "1234 2345\n"
    written = (folder / "model").stat()
    assert (written.st_uid, written.st_gid, written.st_mode & 0o777) == (1234, 2345, 0o644)


def test_a_command_of_the_owner_keeps_its_user(folder):
    assert write_as_owner(folder).startswith(f"{os.getuid()} ")
    assert (folder / "model").stat().st_uid == os.getuid()
