"""Checks of the container files that need no Docker engine."""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from configparser import ConfigParser
from pathlib import Path

import pytest
import yaml

from service import __version__
from service.server import gunicorn_options
from service.settings import Settings
from training.train import main

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
PROMETHEUS = yaml.safe_load((ROOT / "monitoring/prometheus.yml").read_text())
DOCKERFILES = {
    name: (ROOT / name).read_text()
    for name in ("Dockerfile.service", "Dockerfile.jupyter", "Dockerfile.edge")
}

LASTING = [name for name in SERVICES if name not in ("train", "load")]


def lines(dockerfile, instruction):
    text = DOCKERFILES[dockerfile].replace("\\\n", " ")
    return re.findall(rf"^{instruction} +(.+)$", text, re.MULTILINE)


def default(environment):
    """Return the variables of a container where .env sets nothing."""
    return {
        name: re.sub(r"\$\{\w+:-(.*?)\}", r"\1", str(value)) for name, value in environment.items()
    }


def mount(service, target):
    return next(volume for volume in SERVICES[service]["volumes"] if f":{target}" in volume)


@pytest.mark.parametrize("name", LASTING)
def test_ports_are_configurable_and_published_on_loopback_by_default(name):
    for port in SERVICES[name]["ports"]:
        address, published = re.fullmatch(r"(127.0.0.1|\$\{\w+:-127.0.0.1\}):\$(.*)", port).groups()
        variable = {"edge": "EDGE_ADDRESS", "service": "ISOSERVE_HOST"}.get(name)
        assert address == (f"${{{variable}:-127.0.0.1}}" if variable else "127.0.0.1")
        assert re.fullmatch(
            r"\{(ISOSERVE|PROMETHEUS|GRAFANA|JUPYTER|EDGE|EDGE_TLS)_PORT:-(\d+)\}:\2", published
        )


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_drops_its_capabilities_and_has_a_read_only_file_system(name):
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert service.get("read_only") or name == "jupyter"  # users install packages there
    if name in ("train", "jupyter"):  # they switch to the owner of the models
        assert service["cap_add"] == ["SETUID", "SETGID"]
    else:
        assert "cap_add" not in service


@pytest.mark.parametrize("name", LASTING)
def test_long_running_containers_have_a_health_check_and_time_to_stop(name):
    service = SERVICES[name]
    if "healthcheck" not in service:
        assert "HEALTHCHECK" in DOCKERFILES[service["build"]["dockerfile"]]
    assert service["stop_grace_period"] == "15s"  # a stop takes less than 10
    assert service["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", SERVICES)
def test_every_containers_memory_and_processes_are_limited(name):
    assert re.fullmatch(r"\d+g|\$\{\w+_MEMORY(_LIMIT)?:-\d+g\}", SERVICES[name]["mem_limit"])
    assert re.fullmatch(r"\d+|\$\{SERVICE_PROCESSES:-\d+\}", str(SERVICES[name]["pids_limit"]))


def choose_state(volume, replicas):
    """Start replicas as the containers do, on one volume; return the state folders they take."""
    _, _, script = SERVICES["service"]["command"]
    script = script.replace("$$", "$").replace("/state", str(volume))
    script = script.replace("python -m service", "sh -c 'echo \"$ISOSERVE_STATE_DIR\"; read _'")
    started = [
        subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(replicas)
    ]
    taken = sorted(one.stdout.readline().decode().strip() for one in started)
    for one in started:
        one.communicate(timeout=10)
    return taken


def test_every_replica_takes_a_state_folder_of_its_own_and_has_it_again_later(tmp_path):
    two = [str(tmp_path), f"{tmp_path}/2"]
    assert choose_state(tmp_path, 1) == two[:1]
    assert choose_state(tmp_path, 2) == two
    assert choose_state(tmp_path, 2) == two
    assert (tmp_path / "2").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", SERVICES)
def test_every_containers_log_is_rotated(name):
    logging = SERVICES[name]["logging"]
    assert logging == {
        "driver": "json-file",
        "options": {"max-size": "10m", "max-file": "3"},
    }


def test_every_container_that_asks_the_service_has_its_key():
    asks = [name for name, one in SERVICES.items() if "ISOSERVE_URL" in one.get("environment", {})]
    assert {"load", "jupyter"} <= set(asks)
    for name in [*asks, "prometheus"]:
        given = SERVICES[name]["environment"].get("ISOSERVE_API_KEY")
        assert given == "${ISOSERVE_API_KEY:-}" or "env_file" in SERVICES[name]


def test_the_health_check_of_the_image_is_the_probe():
    (check,) = lines("Dockerfile.service", "HEALTHCHECK")
    assert check.endswith('CMD ["python", "-m", "service.probe"]')


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda page: page.name)
def test_documented_commands_that_stop_the_containers_stop_all_of_them(page):
    for options in re.findall(r"docker compose ([^`\n]*)\bdown\b", page.read_text()):
        assert options == "--profile '*' "


@pytest.fixture
def open_folder():
    """A temporary folder that every user can reach; pytest's own are private."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.mark.parametrize(
    ("fault", "file"),
    [
        ("missing", "tls.key"),
        ("missing", "tls.crt"),
        ("unreadable", "tls.key"),
        ("unreadable", "tls.crt"),
        ("unreadable", "."),
    ],
)
def test_nginx_does_not_start_without_tls_where_a_certificate_cannot_be_read(
    open_folder, fault, file
):
    certs = open_folder / "certs"
    certs.mkdir(mode=0o755)
    for name in ("tls.crt", "tls.key"):
        (certs / name).touch(mode=0o644)
    program = open_folder / "nginx"
    program.write_text("#!/bin/sh\necho started\n")
    program.chmod(0o755)
    scratch = open_folder / "edge"
    scratch.mkdir()
    scratch.chmod(0o777)
    variables = {
        "PATH": f"{open_folder}:{os.environ['PATH']}",
        "EDGE_CERTS": str(certs),
        "EDGE_DIR": str(scratch),
    }

    def start():
        command = [sys.executable, "-c", AS_USER, "deploy/edge/start"]
        return subprocess.run(
            command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False
        )

    sound = start()
    assert (sound.returncode, sound.stdout) == (0, "started\n"), sound.stderr
    wrong = certs / file
    wrong.unlink() if fault == "missing" else wrong.chmod(0)
    refused = start()
    certs.chmod(0o755)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith(f"edge: {wrong} cannot be read by user ")


def test_nginx_takes_one_known_replica_out_at_a_time(open_folder):
    program = open_folder / "nginx"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    variables = {
        "PATH": f"{open_folder}:{os.environ['PATH']}",
        "EDGE_DIR": str(open_folder),
        "EDGE_SERVICE": "a:1 b:2 c:3",
    }

    def run(*words):
        command = [ROOT / "deploy/edge/start", *words]
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
        return done.returncode, done.stderr, [one.name for one in (open_folder / "out").iterdir()]

    assert run() == (0, "", [])
    groups = (open_folder / "conf/replicas.conf").read_text().split("upstream ")[1:]
    members = {g.split()[0]: re.findall(r"server (\S+);", g) for g in groups}
    assert members == {
        "isoserve": ["a:1", "b:2", "c:3"],
        "isoserve_but_1": ["b:2", "c:3"],
        "isoserve_but_2": ["a:1", "c:3"],
        "isoserve_but_3": ["a:1", "b:2"],
    }
    assert run("out", "a:1") == (0, "", ["a:1"])
    assert run("out", "b:2") == (0, "", ["b:2"])
    assert run("out", "d:4") == (1, "edge: d:4 is none of: a:1 b:2 c:3\n", ["b:2"])
    assert run("back", "b:2") == (0, "", [])


# Run a file as the user of the containers; root could read anything.
AS_USER = "import os, sys; os.getuid() or os.setuid(10001); os.execv(sys.argv[1], sys.argv[1:])"


def test_containers_start_after_those_they_depend_on():
    assert (
        SERVICES["service"]["depends_on"]["train"]["condition"] == "service_completed_successfully"
    )
    for name in ("prometheus", "jupyter", "load"):
        assert SERVICES[name]["depends_on"]["service"]["condition"] == "service_healthy"
    assert SERVICES["grafana"]["depends_on"]["prometheus"]["condition"] == "service_healthy"


def test_images_are_pinned_by_tags():
    bases = {line.split()[0] for name in DOCKERFILES for line in lines(name, "FROM")}
    built = {service["image"] for service in SERVICES.values() if "build" in service}
    pulled = {service["image"] for service in SERVICES.values()} - built
    for image in (bases - {"base"}) | pulled:
        assert re.fullmatch(
            r"debian:bookworm-slim|[a-z/]+:v?\d+\.\d+(\.\d+)?(-slim-bookworm)?", image
        ), image
    assert not any("# syntax" in text for text in DOCKERFILES.values())


def test_state_is_kept_in_named_volumes_and_models_in_the_checkout():
    assert COMPOSE["volumes"].keys() == {"state", "prometheus", "grafana"}
    assert mount("service", "/state") == "${ISOSERVE_STATE_DIR:-state}:/state"
    assert mount("prometheus", "/prometheus") == "prometheus:/prometheus"
    assert mount("grafana", "/var/lib/grafana") == "grafana:/var/lib/grafana"
    assert mount("service", "/models") == "./models:/models:ro"
    assert mount("train", "/data") == "./data:/data:ro"
    assert mount("train", "/models") == mount("jupyter", "/models") == "./models:/models"
    for folder in ("models", "data"):  # otherwise Docker creates them as root
        assert (ROOT / folder / ".gitkeep").exists()


def test_the_grace_period_is_longer_than_a_stop():
    grace = SERVICES["service"]["stop_grace_period"]
    settings = Settings()
    with socket.socket() as listener:
        options = gunicorn_options(settings, listener)
    stop = settings.drain_seconds + options["graceful_timeout"]
    assert stop < 10
    assert int(grace.removesuffix("s")) >= stop + 5


def test_the_service_listens_on_the_published_port():
    environment = default(SERVICES["service"]["environment"])
    fields = {name.removeprefix("ISOSERVE_").lower(): value for name, value in environment.items()}
    settings = Settings(**fields)
    assert (settings.host, settings.port) == ("0.0.0.0", 8000)
    # The working directory is /, laid out like the repository.
    assert (str(settings.model), str(settings.state_dir)) == ("models/model.pickle", "/state")
    assert lines("Dockerfile.service", "WORKDIR")[-1] == "/"
    assert mount("service", "/models") == "./models:/models:ro"
    jobs = PROMETHEUS["scrape_configs"]
    (found,) = [job["dns_sd_configs"] for job in jobs]
    assert [(one["names"], one["type"], one["port"]) for one in found] == [(["service"], "A", 8000)]
    assert PROMETHEUS["global"]["scrape_interval"] == "5s"


def test_one_client_cannot_fill_the_memory_of_the_proxy():
    edge = SERVICES["edge"]
    bound = re.fullmatch(r"/tmp:size=\$\{EDGE_MEMORY:-(\d+)g\}", edge["tmpfs"])
    defaults = (ROOT / "deploy/edge/start").read_text()
    requests = re.search(r"\{EDGE_REQUESTS:=(\d+)\}", defaults)
    largest = re.search(r"\{EDGE_MAX_BODY:=(\d+)m\}", defaults)
    assert edge["environment"]["EDGE_REQUESTS"] == f"${{EDGE_REQUESTS:-{requests[1]}}}"
    assert edge["environment"]["EDGE_MAX_BODY"] == f"${{EDGE_MAX_BODY:-{largest[1]}m}}"
    nginx = (ROOT / "deploy/edge/nginx.conf").read_text()
    answers = re.search(r"proxy_max_temp_file_size (\d+)m;", nginx)
    each = int(largest[1]) + int(answers[1])
    assert int(requests[1]) * each < int(bound[1]) * 1024  # one address cannot fill it


def test_env_example_lists_every_variable_and_sets_none():
    text = (ROOT / ".env.example").read_text()
    assert all(line.startswith("#") for line in text.splitlines() if line)
    known = {f"ISOSERVE_{name.upper()}" for name in Settings.model_fields}
    used = set(
        re.findall(
            r"\$\{((?:\w+_PORT|GRAFANA_\w+|EDGE_\w+|ISOSERVE_\w+|SERVICE_\w+|TRAIN_\w+)):[-+]",
            (ROOT / "docker-compose.yml").read_text(),
        )
    )
    named = set(re.findall(r"^#(\w+)=", text, re.MULTILINE))
    assert used <= named <= used | known


def test_grafana_is_read_only_and_has_no_user_without_a_password():
    environment = SERVICES["grafana"]["environment"]
    chosen = ConfigParser()
    chosen.read(ROOT / "monitoring/grafana/grafana.ini")
    assert environment["GF_AUTH_ANONYMOUS_ENABLED"] == "true"
    assert chosen["auth.anonymous"]["org_role"] == "Viewer"
    assert chosen["security"].getboolean("disable_initial_admin_creation")
    # Grafana ignores an empty variable.
    assert environment["GF_SECURITY_ADMIN_PASSWORD"] == "${GRAFANA_PASSWORD:-}"
    assert environment["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "${GRAFANA_PASSWORD:+false}"


@pytest.mark.parametrize("name", DOCKERFILES)
def test_images_have_labels_with_version_and_licence(name):
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', DOCKERFILES[name]))
    assert (labels["version"], "\nARG VERSION=" in DOCKERFILES[name]) == ("$VERSION", True)
    assert labels["licenses"] == "Apache-2.0"
    assert labels.keys() >= {"title", "description", "revision", "created"}


def test_the_version_is_in_one_place():
    tracked = ["Makefile", "docker-compose.yml", "pyproject.toml", *DOCKERFILES]
    assert not [name for name in tracked if f'"{__version__}"' in (ROOT / name).read_text()]
    shown = subprocess.run(
        ["make", "--dry-run", "--print-data-base", "up"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    ).stdout  # fmt: skip
    read = re.search(r"^up: VERSION = \$\(shell (.*)\)$", shown, re.MULTILINE)[1]
    command = ["sh", "-c", read.replace("$$", "$")]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said.strip() == __version__
    assert SERVICES["service"]["build"]["args"]["VERSION"] == "${VERSION:-unknown}"


@pytest.mark.parametrize("name", DOCKERFILES)
def test_images_install_libraries_by_hash_and_run_commands_without_a_shell(name):
    for install in re.findall(r"pip .*install [^\n]*", DOCKERFILES[name]):
        assert "--require-hashes" in install or "--no-index" in install
    for instruction in ("CMD", "ENTRYPOINT"):
        assert all(line.startswith("[") for line in lines(name, instruction))


def test_the_service_runs_as_an_unprivileged_user():
    assert lines("Dockerfile.service", "USER") == ["10001:10001"]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_the_build_context_has_every_copied_file_and_no_others(name):
    ignored, *allowed = [
        line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] != "#"
    ]
    assert ignored == "*"
    for copy in lines(name, "COPY"):
        for source in copy.split()[:-1]:
            if not copy.startswith("--from"):
                assert (ROOT / source).exists()
                parent = str(Path(source).parent)
                assert f"!{source}" in allowed or f"!{parent}/*.txt" in allowed


def test_train_does_not_replace_an_existing_model(tmp_path, capsys):
    assert SERVICES["train"]["command"] == ["--if_missing"]
    (tmp_path / "model.pickle").write_bytes(b"mine")
    assert main(["--if_missing", "--save_path", str(tmp_path)]) == 0
    assert "is there already" in capsys.readouterr().err
    assert (tmp_path / "model.pickle").read_bytes() == b"mine"
    assert [path.name for path in tmp_path.iterdir()] == ["model.pickle"]


@pytest.mark.slow
def test_train_creates_a_missing_model_and_says_how_to_serve_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv(*next(iter(SERVICES["train"]["environment"].items())))
    assert main(["--if_missing", "--n_estimators", "2", "--save_path", str(tmp_path)]) == 0
    assert (tmp_path / "model.pickle").exists()
    assert "docker compose restart service" in capsys.readouterr().out


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
def test_promtool_accepts_the_prometheus_configuration(tmp_path):
    shutil.copytree(ROOT / "monitoring/rules", tmp_path / "rules")
    (tmp_path / "api.key").touch()  # the container creates it
    text = (ROOT / "monitoring/prometheus.yml").read_text()
    (tmp_path / "prometheus.yml").write_text(text.replace("/tmp/", f"{tmp_path}/"))
    subprocess.run(["promtool", "check", "config", tmp_path / "prometheus.yml"], check=True)


@pytest.mark.skipif(not shutil.which("docker"), reason="docker is not installed")
def test_docker_compose_accepts_the_compose_file():
    done = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("docker has no compose")
    subprocess.run(["docker", "compose", "config", "--quiet"], cwd=ROOT, check=True)
