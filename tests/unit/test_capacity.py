"""Read the limits of control groups from trees of files, as Linux has them."""

import pytest

from service.capacity import (
    find_limit,
    find_room,
    memory_needed,
    processes_needed,
    require_memory,
    show_bytes,
)
from service.errors import BadSetting

MB = 2**20


def version_1(root, limit, group="/docker/abc", own="memory"):
    (folder := root / f"sys/fs/cgroup/memory{group}").mkdir(parents=True, exist_ok=True)
    (folder / "memory.limit_in_bytes").write_text(f"{limit}\n")
    (root / "proc/self").mkdir(parents=True, exist_ok=True)
    (root / "proc/self/cgroup").write_text(f"8:pids:/\n4:{own}:/docker/abc\n0::/\n")
    return root


def version_2(root, limit, group="/pod/container"):
    (folder := root / f"sys/fs/cgroup{group}").mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (root / "proc/self").mkdir(parents=True, exist_ok=True)
    (root / "proc/self/cgroup").write_text("0::/pod/container\n")
    return root


def test_the_limit_of_a_group_is_found_in_both_versions(tmp_path):
    one, two = version_1(tmp_path / "1", 100 * MB), version_2(tmp_path / "2", 200 * MB)
    assert find_limit("memory", one).value == 100 * MB
    assert find_limit("memory", two) == (200 * MB, two / "sys/fs/cgroup/pod/container/memory.max")


def test_a_container_that_sees_its_own_group_only_finds_it_at_the_top(tmp_path):
    assert find_limit("memory", version_1(tmp_path / "1", 5 * MB, group="")).value == 5 * MB
    assert find_limit("memory", version_2(tmp_path / "2", 6 * MB, group="")).value == 6 * MB


def test_the_lowest_limit_counts_also_one_of_a_group_above(tmp_path):
    version_2(tmp_path, 300 * MB)
    version_2(tmp_path, 100 * MB, group="/pod")
    assert find_limit("memory", tmp_path).value == 100 * MB


def test_controllers_of_version_1_may_share_a_group(tmp_path):
    assert find_limit("memory", version_1(tmp_path, 7 * MB, own="cpu,memory")).value == 7 * MB


@pytest.mark.parametrize("limit", ["max", "9223372036854771712", ""])
def test_no_limit_is_none(tmp_path, limit):
    assert find_limit("memory", version_1(tmp_path / "1", limit)) is None
    assert find_limit("memory", version_2(tmp_path / "2", limit)) is None
    assert find_limit("memory", tmp_path / "nothing") is None


@pytest.mark.parametrize(
    ("model", "workers", "least"),
    [(0.9, 1, 116), (0.9, 2, 124), (0.9, 8, 183), (7.1, 2, 138), (172.2, 1, 676), (212.3, 4, 834)],
)
def test_the_figure_is_near_the_least_limit_that_was_measured(model, workers, least):
    assert memory_needed(round(model * MB), workers) / MB == pytest.approx(least, rel=0.06)
    assert memory_needed(round(model * MB), workers, compiles=True) > least * MB


def test_too_little_memory_is_refused_in_one_sentence(tmp_path):
    root = version_2(tmp_path, 100 * MB)
    with pytest.raises(BadSetting) as refused:
        require_memory(MB, 2, root=root)
    assert str(refused.value) == (
        "a start with 2 workers and a model of 1 MiB takes about 128 MiB of memory, and "
        f"{root}/sys/fs/cgroup/pod/container/memory.max allows 100 MiB; raise that limit, or lower "
        "ISOSERVE_WORKERS"
    )
    require_memory(MB, 2, root=version_2(tmp_path, 130 * MB))
    with pytest.raises(BadSetting, match="and the scorer to compile first, takes about 160 MiB"):
        require_memory(MB, 2, compiles=True, root=root)
    (root / "proc/meminfo").write_text("MemTotal: 9 kB\nSwapFree:   102400 kB\n")
    require_memory(MB, 2, root=version_2(tmp_path, 100 * MB))  # the kernel swaps, and kills nobody


def test_the_room_in_a_group_is_without_what_the_kernel_takes_back(tmp_path):
    root = version_2(tmp_path / "2", 100)
    group = root / "sys/fs/cgroup/pod/container"
    (group / "memory.current").write_text("70\n")
    (group / "memory.stat").write_text("anon 50\nfile 20\n")
    root = version_1(tmp_path / "1", 100)
    group = root / "sys/fs/cgroup/memory/docker/abc"
    (group / "memory.usage_in_bytes").write_text("70\n")
    (group / "memory.stat").write_text("cache 1\ntotal_cache 30\n")
    rooms = [find_room(tmp_path / "2"), find_room(tmp_path / "1"), find_room(tmp_path / "none")]
    assert rooms == [50, 60, None]


def test_processes_are_counted_with_their_threads():
    assert processes_needed(2, 4) - processes_needed(1, 4) == processes_needed(1, 4) - 2
    assert processes_needed(1, 5) - processes_needed(1, 4) == 2


def test_bytes_are_shown_as_they_are_best_read():
    assert [show_bytes(n) for n in (1, 2**20, 3 * 2**29)] == ["1 KiB", "1 MiB", "1.5 GiB"]
