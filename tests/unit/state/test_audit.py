"""The audit log and the chosen threshold, on disk."""

import json
import os
import resource

import pytest

from service.errors import Unavailable
from service.state.audit import AuditLog
from service.state.files import quarantined
from service.threshold_choice import ThresholdChoice


def change(audit, who, *changes):
    with audit.recording(who, *changes):
        pass


def test_each_change_is_one_line_of_a_private_file(tmp_path):
    audit = AuditLog(tmp_path)
    change(audit, "me", ("model", "a", "b"))
    change(audit, "you\n", ("threshold", 0.0, -0.1))
    path = tmp_path / "audit.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(r["who"], r["what"], r["old"], r["new"]) for r in rows] == [
        ("me", "model", "a", "b"),
        ("you\n", "threshold", 0.0, -0.1),
    ]
    assert rows[0]["when"].endswith("+00:00")
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_change_that_cannot_be_written_is_refused(tmp_path):
    audit = AuditLog(tmp_path)
    (tmp_path / "audit.jsonl").mkdir()
    with pytest.raises(Unavailable, match="so nothing was changed"):
        change(audit, "me", ("model", "a", "b"))
    (tmp_path / "threshold.json.new").mkdir()
    with pytest.raises(Unavailable, match="so nothing was changed"):
        AuditLog(tmp_path).choose(ThresholdChoice(0.1), "abc", ThresholdChoice(0.0))


def test_a_full_disk_is_reported(tmp_path):
    audit, limits = AuditLog(tmp_path), resource.getrlimit(resource.RLIMIT_FSIZE)
    change(audit, "me", ("model", "a", "b"))
    before = (tmp_path / "audit.jsonl").read_bytes()
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 9, limits[1]))
    with pytest.raises(Unavailable, match="the disk is full"):
        change(audit, "me", ("model", "a", "b"))
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "audit.jsonl").read_bytes() == before


def test_a_change_that_fails_after_its_line_takes_the_line_back(tmp_path):
    audit = AuditLog(tmp_path)
    change(audit, "me", ("model", "a", "b"))
    before = (tmp_path / "audit.jsonl").read_bytes()
    (tmp_path / "threshold.json").mkdir()
    with (
        pytest.raises(Unavailable, match="so nothing was changed"),
        audit.recording("me", ("threshold", 0.0, 0.1)),
    ):
        audit.choose(ThresholdChoice(0.1), "abc", ThresholdChoice(0.0))
    assert (tmp_path / "audit.jsonl").read_bytes() == before


def test_no_refusal_names_the_folder(tmp_path):
    audit = AuditLog(tmp_path)
    (tmp_path / "audit.jsonl").mkdir()
    with pytest.raises(Unavailable) as refusal:
        change(audit, "me", ("model", "a", "b"))
    assert str(tmp_path) not in str(refusal.value)


@pytest.mark.parametrize(
    ("damage", "left"),
    [
        (lambda log: log[:-20], ["a"]),
        (lambda log: log.replace(b"-0.1", b"-0.2"), ["a"]),
        (lambda log: log.replace(b'"a"', b'"x"'), [0.0]),
        (lambda log: b"\0" * 100 + log, [0.0]),
        (lambda log: log + b"\n", ["a", 0.0]),
    ],
)
def test_a_damaged_log_is_quarantined_and_its_sound_lines_are_kept(tmp_path, caplog, damage, left):
    audit, path = AuditLog(tmp_path), tmp_path / "audit.jsonl"
    change(audit, "me", ("model", "a", "b"))
    change(audit, "me", ("threshold", 0.0, -0.1))
    path.write_bytes(damaged := damage(path.read_bytes()))
    change(AuditLog(tmp_path), "me", ("threshold", -0.1, 0.5))
    (kept,) = quarantined(path)
    assert kept.read_bytes() == damaged
    assert f"quarantined as {kept.name}: of its " in caplog.text
    assert [json.loads(line)["old"] for line in path.read_text().splitlines()] == [*left, -0.1]


def test_a_line_torn_while_the_service_runs_does_not_swallow_the_next(tmp_path):
    audit, path = AuditLog(tmp_path), tmp_path / "audit.jsonl"
    change(audit, "me", ("model", "a", "b"))
    os.truncate(path, path.stat().st_size - 9)
    change(audit, "me", ("model", "b", "c"))
    assert json.loads(path.read_text().splitlines()[-1])["new"] == "c"


def test_lines_of_an_earlier_version_are_kept(tmp_path, caplog):
    line = '{"when": "2026-01-01", "who": "me", "what": "model", "old": "a", "new": "b"}\n'
    (tmp_path / "audit.jsonl").write_text(line)
    change(AuditLog(tmp_path), "me", ("model", "b", "c"))
    assert (tmp_path / "audit.jsonl").read_text().startswith(line)
    assert caplog.text == ""


def test_a_chosen_threshold_is_valid_while_model_and_setting_are_unchanged(tmp_path):
    audit = AuditLog(tmp_path)
    assert audit.chosen("abc", ThresholdChoice(0.0)) == (None, "")
    audit.choose(ThresholdChoice(-0.1), "abc", ThresholdChoice(0.0))
    assert AuditLog(tmp_path).chosen("abc", ThresholdChoice(0.0)) == (ThresholdChoice(-0.1), "")
    assert audit.chosen("abd", ThresholdChoice(0.0)) == (None, "it was chosen for the model abc")
    assert audit.chosen("abc", ThresholdChoice(0.2)) == (
        None,
        "it was chosen instead of the setting 0.0, which is 0.2 now",
    )
    audit.choose(None, "abc", ThresholdChoice(0.0))
    assert audit.chosen("abc", ThresholdChoice(0.0)) == (None, "")


def test_a_chosen_share_is_valid_for_every_model_while_the_setting_is_unchanged(tmp_path):
    audit, setting = AuditLog(tmp_path), ThresholdChoice(share=0.01)
    audit.choose(ThresholdChoice(share=0.005), "abc", setting)
    assert audit.chosen("abd", setting) == (ThresholdChoice(share=0.005), "")
    assert audit.chosen("abd", ThresholdChoice(0.0)) == (
        None,
        "it was chosen instead of the setting share 0.01, which is 0.0 now",
    )


@pytest.mark.parametrize(
    "damage",
    [
        *(lambda _, text=text: text for text in ("", "[]", "{}", '{"threshold": "x"}', "\x00")),
        *(lambda _, text=text: text for text in ("[" * 200_000, "9" * 5000, "x" * 10**6)),
        *(lambda sound, to=to: sound.replace("-0.1", to) for to in ("-0.2", "NaN", "9" * 400)),
        lambda sound: sound[:-2],
        lambda sound: sound + " ",
    ],
)
def test_a_damaged_threshold_is_not_used_and_quarantined(tmp_path, caplog, damage):
    path = tmp_path / "threshold.json"
    AuditLog(tmp_path).choose(ThresholdChoice(-0.1), "abc", ThresholdChoice(0.0))
    path.write_text(damage(path.read_text()))
    threshold, invalid = AuditLog(tmp_path).chosen("abc", ThresholdChoice(0.0))
    assert threshold is None
    assert "was damaged" in invalid
    assert len(quarantined(path)) == 1
    assert not path.exists()
    assert "is quarantined as threshold.json." in caplog.text
