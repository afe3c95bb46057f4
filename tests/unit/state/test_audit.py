"""The audit log and the chosen threshold, on disk."""

import json
import os

import pytest

from service.errors import Unavailable
from service.state.audit import AuditLog


def test_each_change_is_one_line_of_a_private_file(tmp_path):
    audit = AuditLog(tmp_path)
    audit.write("me", "model", "a", "b")
    audit.write("you\n", "threshold", 0.0, -0.1)
    path = tmp_path / "audit.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(r["who"], r["what"], r["old"], r["new"]) for r in rows] == [
        ("me", "model", "a", "b"),
        ("you\n", "threshold", 0.0, -0.1),
    ]
    assert rows[0]["when"].endswith("+00:00")
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_change_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "audit.jsonl").mkdir()
    with pytest.raises(Unavailable, match="so nothing was changed"):
        AuditLog(tmp_path).write("me", "model", "a", "b")
    (tmp_path / "threshold.new").mkdir()
    with pytest.raises(Unavailable, match="so nothing was changed"):
        AuditLog(tmp_path).choose(0.1, "abc", 0.0)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
def test_a_full_disk_is_reported(tmp_path):
    (tmp_path / "audit.jsonl").symlink_to("/dev/full")
    with pytest.raises(Unavailable, match="No space left"):
        AuditLog(tmp_path).write("me", "model", "a", "b")


def test_a_chosen_threshold_is_valid_while_model_and_setting_are_unchanged(tmp_path):
    audit = AuditLog(tmp_path)
    assert audit.chosen("abc", 0.0) == (None, "")
    audit.choose(-0.1, "abc", 0.0)
    assert AuditLog(tmp_path).chosen("abc", 0.0) == (-0.1, "")
    assert audit.chosen("abd", 0.0) == (None, "it was chosen for the model abc")
    assert audit.chosen("abc", 0.2) == (
        None,
        "it was chosen instead of the setting 0.0, which is 0.2 now",
    )
    audit.choose(None, "abc", 0.0)
    assert audit.chosen("abc", 0.0) == (None, "")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"threshold": "x"}', "\x00"])
def test_a_damaged_threshold_file_is_ignored(tmp_path, text):
    (tmp_path / "threshold.json").write_text(text)
    threshold, invalid = AuditLog(tmp_path).chosen("abc", 0.0)
    assert threshold is None
    assert "is damaged" in invalid
