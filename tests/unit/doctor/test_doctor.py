"""Inject faults, one at a time; each is named, with what to do."""

import json
import os
import resource
import shutil
import socket
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from service.doctor import host, start
from service.doctor.compose import look_at_compose
from service.doctor.examine import examine, show, summarize
from service.doctor.report import Finding, Report
from service.rows import Verdict
from service.state.audit import AuditLog
from service.state.counts import Counts
from service.state.feedback.store import begin_feedback
from service.state.folder import RESTORING
from service.state.records import begin_records
from service.threshold_choice import ThresholdChoice
from service.truths import ScoredRow, Statement
from tests.support.running import free_port, run_python

ROOT = Path(__file__).parents[3]

COLUMNS = ["mean", "sd"]
DAY = 86_400


@pytest.fixture
def site(folder, write_card, monkeypatch):
    """A sound installation: model, card, state, settings, a machine with limits, a checkout."""
    write_card()
    state = folder / "state"
    state.mkdir(mode=0o700)
    Counts(state, COLUMNS).add(Verdict(np.array([0.1]), 0.0))
    records = begin_records(state, COLUMNS, 50)
    records.append("p", np.ones((1, 2)), Verdict(np.array([0.1]), 0.0, "abc"))
    store = begin_feedback(state)
    store.add(Statement("p", truths=(1,)), [ScoredRow(0, 0, 0.1, "abc", True)])
    store.close()
    chosen = {"MODEL": folder / "model.pickle", "STATE_DIR": state, "PORT": free_port(),
              "RECORDS": 50}  # fmt: skip
    for name, value in chosen.items():
        monkeypatch.setenv(f"ISOSERVE_{name}", str(value))
    make_machine(folder / "root", memory=2**31, pids=1000)
    monkeypatch.setattr("service.state.backup._CHANGE_SECONDS", 0.01)
    (folder / "checkout").mkdir()
    for name in ("docker-compose.yml", "monitoring"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / "checkout" / name)
    return folder


def make_machine(root, memory, pids, kind="ext4"):
    """Write the files in which Linux says what a container of control group version 2 may use."""
    group = root / "sys/fs/cgroup/pod/container"
    group.mkdir(parents=True, exist_ok=True)
    (root / "proc/self").mkdir(parents=True, exist_ok=True)
    (root / "proc/self/cgroup").write_text("0::/pod/container\n")
    (root / "proc/self/mountinfo").write_text(f"1 0 8:1 / / rw shared:1 - {kind} /dev/x rw\n")
    (group / "memory.max").write_text(f"{memory}\n")
    (group / "pids.max").write_text(f"{pids}\n")


def look(site):
    return examine(site / "checkout", root=site / "root")


def bad(report):
    return [finding for finding in report.findings if finding.level != "ok"]


def test_a_sound_installation_has_no_fault_and_is_not_changed(site):
    def contents():
        return {path: path.read_bytes() for path in site.rglob("*") if path.is_file()}

    before = contents()
    report = look(site)
    assert bad(report) == []
    assert summarize(report) == "Everything is as it should be."
    after = contents()
    for path in (before, after):
        path.pop(site / "state/service.lock", None)
    assert after.keys() - before.keys() == set()
    assert all(after[path] == before[path] for path in before if path.suffix != ".db-shm")


def setting(name, value):
    return lambda site, patch: patch.setenv(name, str(value).format(site=site))


def damage(name, at=4096, flip=2):
    def inject(site, _):
        content = bytearray((site / name).read_bytes())
        content[at] ^= flip
        (site / name).write_bytes(content)

    return inject


def write(name, text):
    return lambda site, _: (site / name).write_text(text.format(site=site))


def machine_with(**limits):
    return lambda site, _: make_machine(site / "root", **{"memory": 2**31, "pids": 1000} | limits)


def nothing_compiled(site, patch):
    patch.setenv("NUMBA_CACHE_DIR", str(site / "cache"))
    patch.setattr("numba.config.CACHE_DIR", str(site / "cache"))
    make_machine(site / "root", memory=150 * 2**20, pids=1000)


def card_of_another_file(site, _):
    card = json.loads((site / "model.json").read_text())
    card["files"] = {"model.pickle": "0" * 64}
    (site / "model.json").write_text(json.dumps(card))


def in_the_future(site, _):
    os.utime(site / "model.pickle", (time.time() + 9 * DAY,) * 2)


def after_the_last_feedback(site, patch):
    later = time.time() + 999 * DAY
    patch.setattr("service.state.feedback.store.time.time", lambda: later)


def open_to_others(site, _):
    (site / "state").chmod(0o755)


def of_another_user(site, _):
    if os.geteuid():
        pytest.skip("only root gives files away")
    os.chown(site / "state/counts.bin", 10001, 10001)


def folder_of_another_user(site, _):
    if os.geteuid():
        pytest.skip("only root gives files away")
    for path in (site / "state", *(site / "state").iterdir()):
        os.chown(path, 10001, 10001)


def threshold_of_another_model(site, _):
    AuditLog(site / "state").choose(ThresholdChoice(0.5), "0" * 64, ThresholdChoice(0.0))


def half_a_restore(site, _):
    (site / "state" / RESTORING).mkdir()


def damaged_row(site, _):
    path = site / "state/records.bin"
    content = path.read_bytes()
    path.write_bytes(content.replace(b"abc\0", b"abd\0"))


def other_columns(site, patch):
    (site / "state/counts.bin").unlink()
    Counts(site / "state", ["a", "b"])


def little_room(free):
    def inject(site, patch):
        (site / "state/counts.bin").unlink()
        patch.setattr(start, "measure_space", lambda folder: (10**9, free))

    return inject


@pytest.mark.parametrize(("usual", "here", "chosen"), [(9, 5, 0), (2, 1, 0), (1, 9, 1)])
def test_a_copy_goes_where_there_is_room(site, monkeypatch, usual, here, chosen):
    places = [Path(start.tempfile.gettempdir()), site / "state"]
    free = dict(zip(places, (usual * 2**27, here * 2**27), strict=True))
    monkeypatch.setattr(start, "measure_space", lambda folder: (10**12, free[folder]))
    assert start._scratch(site / "state") == places[chosen]


def limit_of(which, value):
    def inject(site, patch):
        real = resource.getrlimit
        for module in ("service.doctor.host.getrlimit", "service.server.getrlimit"):
            patch.setattr(module, lambda one: (value,) * 2 if one == which else real(one))

    return inject


def other_version(site, patch):
    info = site / "libraries/isoserve-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: isoserve\nVersion: 0.1.0\nRequires-Python: >=3.11\n"
        "Requires-Dist: numpy<1.5,>=1.0\nRequires-Dist: pandas>=99; extra == 'train'\n"
    )
    patch.syspath_prepend(str(site / "libraries"))


def missing(name):
    return lambda site, _: (site / "checkout/monitoring" / name).unlink()


def closed_to_others(site, _):
    (site / "checkout/monitoring/prometheus.yml").chmod(0o600)


FAULTS = [
    # settings
    (setting("ISOSERVE_WORKERS", 99), "settings", "fault", "ISOSERVE_WORKERS='99': input should"),
    (setting("ISOSERVE_WORKER", 1), "settings", "warning", "ISOSERVE_WORKER is no setting"),
    (setting("ISOSERVE_API_KEY", "short"), "settings", "fault", "a token has 16 or more"),
    (setting("ISOSERVE_API_KEY_FILE", "/no"), "settings", "fault", "/no: cannot be read"),
    (setting("ISOSERVE_HOST", "0.0.0.0"), "settings", "warning", "set a key"),
    # model
    (setting("ISOSERVE_MODEL", "none.pickle"), "model", "fault", "make a model with"),
    (write("model.pickle", "no model"), "model", "fault", "it is not a pickle; save"),
    (card_of_another_file, "model", "warning", "describes another file than"),
    (setting("ISOSERVE_MODEL_SHA256", "0" * 64), "model", "fault", "put the right file there"),
    (write("model.json", "{{"), "model", "warning", "is damaged"),
    (setting("ISOSERVE_MAX_COLUMNS", 1), "model", "fault", "would refuse every request"),
    # state
    (setting("ISOSERVE_STATE_DIR", "{site}/model.pickle"), "folder", "fault", "name a folder"),
    (open_to_others, "folder", "warning", "chmod 700"),
    (folder_of_another_user, "folder", "warning", "belongs to user 10001, and this process is"),
    (of_another_user, "owner", "fault", "counts.bin: owned by user 10001"),
    (half_a_restore, "folder", "fault", "did not end; run `python -m service state restore"),
    (damage("state/counts.bin", 4096 + 8 * 2112), "state", "fault", "counts.bin: its numbers"),
    (damage("state/feedback.db", 3), "state", "fault", "feedback.db: it cannot be copied"),
    (damaged_row, "state", "warning", "1 damaged rows are dropped"),
    (write("state/counts.bin.7", "x"), "state", "warning", "1 damaged or outdated files are quar"),
    (write("state/audit.jsonl", "x\n"), "state", "warning", "of its 1 lines these are damaged"),
    (threshold_of_another_model, "state", "warning", "is no longer valid"),
    (other_columns, "state", "warning", "its layout is different (columns of the model)"),
    (setting("ISOSERVE_RECORDS", 90), "state", "warning", "its layout is different (rows"),
    # machine
    (machine_with(memory=100 * 2**20), "memory", "fault", "takes about 127 MiB of memory, and"),
    (nothing_compiled, "memory", "fault", "and the scorer to compile first, takes about 159 MiB"),
    (machine_with(pids=20), "processes", "fault", "allows 20 processes and threads, and"),
    (machine_with(kind="nfs4"), "disk", "fault", "is on nfs4: locks and memory maps"),
    (machine_with(kind="overlay"), "disk", "warning", "mount a volume"),
    (little_room(10**6), "space", "fault", "1,000,000 bytes are free, and a start needs 2,1"),
    (little_room(10**7), "space", "warning", "less than a tenth is free"),
    (in_the_future, "clock", "fault", "set it right"),
    (after_the_last_feedback, "state", "warning", "set the clock right"),
    (limit_of(resource.RLIMIT_NOFILE, 300), "files", "warning", "300 open files allow 200"),
    (limit_of(resource.RLIMIT_FSIZE, 9999), "files", "fault", "no file may be larger than 9,999"),
    (setting("NUMBA_DISABLE_JIT", 1), "variables", "warning", "must be compiled; unset it"),
    (setting("PYTHONPATH", "/x"), "variables", "warning", "come before those of isoserve"),
    (setting("PORT", 80), "variables", "warning", "PORT has no effect: ISOSERVE_PORT"),
    (other_version, "versions", "fault", "numpy<1.5,>=1.0 is required, and"),
    # compose
    (write("checkout/.env", "ISOSERVE_THREADZ=1\n"), "compose", "fault", ".env: ISOSERVE_THREADZ"),
    (write("checkout/.env", "GRAFANA_PORT=9090"), "compose", "fault", "GRAFANA_PORT are both 9090"),
    (write("checkout/.env", "ISOSERVE_API_KEY_FILE=k"), "compose", "fault", "give the key itself"),
    (missing("prometheus.yml"), "compose", "fault", "monitoring/prometheus.yml is missing"),
    (missing("rules/alerts.yml"), "compose", "fault", "alerts.yml is missing"),
    (missing("grafana/dashboards/isoserve.json"), "compose", "fault", "isoserve.json is missing"),
    (closed_to_others, "compose", "fault", "chmod -R a+rX monitoring"),
    (
        write("checkout/monitoring/grafana/dashboards/isoserve.json", "{{"),
        "compose", "fault", "is not JSON",
    ),
    (
        write("checkout/monitoring/grafana/dashboards/isoserve.json",
              '{{"panels": [{{"datasource": {{"uid": "other"}}}}]}}'),
        "compose", "fault", "reads the data source 'other'",
    ),
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault[3])
def test_a_fault_is_named_with_what_to_do(site, monkeypatch, fault):
    inject, subject, level, sentence = fault
    inject(site, monkeypatch)
    report = Report()
    if subject == "compose":
        look_at_compose(report, site / "checkout")
    else:
        report = look(site)
    found = [(one.level, one.subject) for one in bad(report) if sentence in one.text]
    assert found == [(level, subject)], bad(report)


def test_a_port_in_use_is_named(site):
    with socket.create_server(("127.0.0.1", int(os.environ["ISOSERVE_PORT"]))):
        (finding,) = bad(look(site))
    assert (finding.level, finding.subject) == ("fault", "port")
    assert "choose another, or stop the process that listens there" in finding.text


def test_a_folder_that_does_not_exist_is_not_created(site, monkeypatch):
    monkeypatch.setenv("ISOSERVE_STATE_DIR", str(site / "none"))
    report = look(site)
    assert (bad(report), (site / "none").exists()) == ([], False)
    assert "there is none yet" in [f.text for f in report.findings if f.subject == "state"]


def test_machine_code_that_is_not_kept_is_a_warning():
    report = Report()
    host.look_at_cache(report, SimpleNamespace(cache=None))
    assert report.findings[0].level == "warning"
    assert "NUMBA_CACHE_DIR" in report.findings[0].text


def test_seldons_variables_are_named(monkeypatch):
    report = Report()
    host.look_at_variables(report, {"GUNICORN_WORKERS": "3"})
    assert report.findings == [Finding("ok", "variables", "from Seldon: GUNICORN_WORKERS=3")]


def test_the_command_has_the_exit_code_of_the_worst_finding(site, tmp_path):
    done = run_python(("-m", "service", "doctor"), tmp_path)
    lines = done.stdout.splitlines()
    assert (done.returncode, lines[-1].startswith("0 faults")) == (0, True), done.stdout
    assert {line.split()[0] for line in lines[:-1]} <= {"ok", "warning"}
    done = run_python(("-m", "service", "doctor"), tmp_path, ISOSERVE_MODEL="none.pickle")
    assert (done.returncode, done.stderr) == (1, "")
    assert "fault    model      none.pickle cannot be read" in done.stdout


def test_a_running_service_is_looked_at_without_disturbing_it(serve, folder, write_card, tmp_path):
    write_card()
    service = serve(folder / "model.pickle", state_dir=folder / "state")
    service.post("/predict", {"data": {"ndarray": [[1, 1]]}})
    about = {"ISOSERVE_MODEL": str(folder / "model.pickle"), "ISOSERVE_PORT": str(service.port)}
    about["ISOSERVE_STATE_DIR"] = str(folder / "state")
    done = run_python(("-m", "service", "doctor"), tmp_path, **about)
    assert done.returncode == 0, done.stdout
    assert f"is used by the running service {service.process.pid}" in done.stdout
    assert f"the service answers on 127.0.0.1 port {service.port}: 200 " in done.stdout
    done = run_python(("-m", "service", "doctor"), tmp_path, **about | {"ISOSERVE_PORT": "1"})
    assert "does not answer on 127.0.0.1 port 1" in done.stdout
    assert service.post("/predict", {"data": {"ndarray": [[1, 1]]}})[0] == 200


def test_a_finding_is_one_line():
    assert show(Finding("fault", "port", "is taken")) == "fault    port       is taken"
    assert json.dumps(summarize(Report())) and sys.version_info
