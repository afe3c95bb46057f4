"""Start in a control group that leaves too little memory, and in one that leaves just enough."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.capacity import memory_needed
from tests.support.cgroups import memory_group
from tests.support.running import free_port

ROOT = Path(__file__).parents[2]

# Moves itself into the group, and then becomes the service.
_ENTER = "import os, sys; open(sys.argv[1], 'w').write(str(os.getpid())); os.execv(sys.executable,"
_ENTER += " [sys.executable, '-m', 'service', *sys.argv[2:]])"


@pytest.fixture
def start(folder):
    """Run a command of the service in a group; return its exit code and output, or let it run."""
    variables = {"ISOSERVE_MODEL": str(folder / "model.pickle"), "ISOSERVE_RECORDS": "100"}
    variables |= {"ISOSERVE_STATE_DIR": str(folder / "state"), "ISOSERVE_PORT": str(free_port())}

    def run(group, *command):
        command = [sys.executable, "-c", _ENTER, str(group), *command]
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | variables,
            stdout=subprocess.PIPE,
            text=True,
            stderr=subprocess.STDOUT,
        )

    return run


def needed(folder):
    return memory_needed((folder / "model.pickle").stat().st_size, 2)


def test_too_little_memory_ends_a_start_with_a_sentence_and_not_with_a_kill(start, folder):
    with memory_group(needed(folder) * 3 // 4) as group:
        process = start(group)
        said, _ = process.communicate(timeout=60)
    assert (process.returncode, said.count("of memory, and /sys/fs/cgroup")) == (1, 1), said


@pytest.mark.slow
def test_the_doctor_says_so_too(start, folder):
    with memory_group(needed(folder) * 3 // 4) as group:
        process = start(group, "doctor")
        said, _ = process.communicate(timeout=60)
    assert (process.returncode, "fault    memory" in said) == (1, True), said


@pytest.mark.slow
def test_the_figure_is_enough_for_a_start(start, folder):
    with memory_group(needed(folder) + 4096) as group:
        process = start(group)
        try:
            lines, said = iter(process.stdout.readline, ""), []
            assert any(said.append(line) or '"event": "ready"' in line for line in lines), said
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
