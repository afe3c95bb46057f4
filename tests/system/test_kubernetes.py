"""Hold the manifests of deploy/kubernetes against Kubernetes' schemas, and against the service."""

import json
import re
import shutil
import socket
import subprocess
from functools import cache
from pathlib import Path

import pytest
import yaml
from kubernetes_validate import validate

from monitoring import kubernetes as generator
from service import __version__
from service.server import gunicorn_options
from service.settings import Settings
from service.web.health import HEALTH

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/kubernetes"
BASE, EXAMPLE = FOLDER / "base", FOLDER / "overlays/example"
SELDON = yaml.safe_load((FOLDER / "seldon/seldondeployment.yaml").read_text())
KSERVE = yaml.safe_load((FOLDER / "kserve/inferenceservice.yaml").read_text())
SCHEMAS = "1.37"
OPERATORS = {"ServiceMonitor", "PrometheusRule"}
"""Kinds that are not Kubernetes' own: .ci/manifests validates them."""

FILES = [
    path for path in sorted(FOLDER.glob("*/*.yaml")) + sorted(FOLDER.glob("components/*/*.yaml"))
    if path.name != "kustomization.yaml"
]  # fmt: skip


def read(path):
    return [one for one in yaml.safe_load_all(path.read_text()) if one]


@cache
def render(overlay):
    """Return the objects of an overlay by (kind, name)."""
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not installed, so nothing was rendered")
    done = subprocess.run(["kubectl", "kustomize", overlay], capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    objects = [one for one in yaml.safe_load_all(done.stdout) if one]
    return {(one["kind"], one["metadata"]["name"]): one for one in objects}


def only(objects, kind, name="isoserve"):
    return next(one for (k, n), one in objects.items() if k == kind and n.startswith(name))


def settings_file():
    lines = (BASE / "settings.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


STATEFUL_SET = read(BASE / "statefulset.yaml")[0]
TEMPLATE = STATEFUL_SET["spec"]["template"]
POD_SPECS = {
    "base": TEMPLATE["spec"],
    "edge": read(FOLDER / "components/edge/edge.yaml")[0]["spec"]["template"]["spec"],
    "seldon": SELDON["spec"]["predictors"][0]["componentSpecs"][0]["spec"],
    "kserve": {key: KSERVE["spec"]["predictor"][key] for key in ("containers", "volumes")},
}
OURS = ("base", "seldon", "kserve")


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_file_obeys_the_strict_schema_of_its_kind(path):
    for one in read(path):
        if "k8s.io" in one["apiVersion"] or "." not in one["apiVersion"]:
            validate(one, SCHEMAS, strict=True)


def test_an_unknown_field_is_no_manifest():
    wrong = read(BASE / "disruption.yaml")[0]
    wrong["spec"]["maxUnavailables"] = 1
    with pytest.raises(Exception, match="maxUnavailables"):
        validate(wrong, SCHEMAS, strict=True)


def test_the_example_overlay_renders_objects_that_obey_their_schemas():
    objects = render(EXAMPLE)
    assert len(objects) == 14
    for one in objects.values():
        assert one["metadata"].get("namespace") == "isoserve"
        if one["kind"] not in OPERATORS:
            validate(one, SCHEMAS, strict=True)
    container = only(objects, "StatefulSet")["spec"]["template"]["spec"]["containers"][0]
    assert container["image"].startswith("registry.example/isoserve-model:")
    values = only(objects, "ConfigMap")["data"]
    assert container["envFrom"][0]["configMapRef"]["name"] == only(objects, "ConfigMap")[
        "metadata"]["name"]  # fmt: skip
    assert values.keys() == settings_file().keys() | {"ISOSERVE_THRESHOLD"}


def test_the_example_and_the_page_name_this_version():
    example = (EXAMPLE / "kustomization.yaml").read_text()
    page = (ROOT / "docs/operate/kubernetes.md").read_text()
    tags = re.findall(r"isoserve-edge, newTag: (\S+)}", example)
    tags += re.findall(r"isoserve-edge:(\S+)", page)
    assert len(tags) == 3
    assert set(tags) == {__version__}


@pytest.mark.parametrize("name", sorted(p.name for p in (FOLDER / "components").iterdir()))
def test_every_component_renders_and_obeys_the_schemas(tmp_path, name):
    shutil.copytree(FOLDER, tmp_path / "kubernetes")
    overlay = tmp_path / "kubernetes/overlays/mine"
    overlay.mkdir()
    (overlay / "kustomization.yaml").write_text(
        f"resources: [../../base]\nnamePrefix: mine-\ncomponents: [../../components/{name}]\n"
    )
    objects = render(overlay)
    for one in objects.values():
        assert one["metadata"]["name"].startswith("mine-")
        if one["kind"] not in OPERATORS:
            validate(one, SCHEMAS, strict=True)


def test_a_changed_setting_is_rolled_out(tmp_path):
    shutil.copytree(BASE, tmp_path / "base")
    before = only(render(BASE), "ConfigMap")["metadata"]["name"]
    with (tmp_path / "base/settings.env").open("a") as file:
        file.write("ISOSERVE_THRESHOLD=0.1\n")
    objects = render(tmp_path / "base")
    name = only(objects, "ConfigMap")["metadata"]["name"]
    assert name != before
    (container,) = only(objects, "StatefulSet")["spec"]["template"]["spec"]["containers"]
    assert container["envFrom"] == [{"configMapRef": {"name": name}}]


def test_the_prometheus_rule_is_made_from_the_rule_files():
    assert generator.TARGET.read_text() == generator.render(), (
        "write it with: python -m monitoring.kubernetes"
    )
    (rule,) = read(generator.TARGET)
    files = sorted((ROOT / "monitoring/rules").glob("*.yml"))
    groups = [group for path in files for group in yaml.safe_load(path.read_text())["groups"]]
    assert rule["spec"]["groups"] == groups


def test_the_settings_are_settings_and_change_nothing_while_the_service_runs(monkeypatch):
    values = settings_file()
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    settings = Settings.read()
    assert {name.removeprefix("ISOSERVE_").lower() for name in values} <= settings.model_fields_set
    assert settings.require_card
    assert not settings.read_admin_token()
    assert not settings.watch
    assert settings.model_sha256 == "0" * 64  # no model is served before one is named


@pytest.mark.parametrize("name", OURS)
def test_the_grace_period_is_longer_than_a_stop(name):
    spec = POD_SPECS[name]
    drain = float(variables(name).get("ISOSERVE_DRAIN_SECONDS", 5))
    with socket.socket() as listener:
        finishing = gunicorn_options(Settings(), listener)["graceful_timeout"]
    waits = {"seldon": 10}.get(name, 0)  # Seldon's operator adds `sleep 10` before a stop
    grace = spec.get("terminationGracePeriodSeconds", 30)
    assert grace >= waits + drain + finishing + 5


def variables(name):
    """Return the variables that a pod spec sets."""
    container = POD_SPECS[name]["containers"][0]
    return settings_file() if name == "base" else {v["name"]: v["value"] for v in container["env"]}


def test_the_service_listens_where_the_operator_of_seldon_says(monkeypatch):
    image = re.findall(r"(ISOSERVE_\w+)=(\S+)", (ROOT / "Dockerfile.service").read_text())
    for name, value in [*image, *variables("seldon").items()]:
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PREDICTIVE_UNIT_HTTP_SERVICE_PORT", "9000")
    graph = SELDON["spec"]["predictors"][0]["graph"]
    monkeypatch.setenv("PREDICTIVE_UNIT_PARAMETERS", json.dumps(graph["parameters"]))
    settings = Settings.read()
    assert (settings.host, settings.port, settings.threshold) == ("0.0.0.0", 9000, 0.0)
    assert graph["name"] == POD_SPECS["seldon"]["containers"][0]["name"]


@pytest.mark.parametrize("name", POD_SPECS)
def test_every_pod_is_locked_down(name):
    spec = POD_SPECS[name]
    user = re.search(r"^USER (\d+):", (ROOT / "Dockerfile.service").read_text(), re.MULTILINE)[1]
    for container in spec["containers"]:
        own = spec.get("securityContext", {}) | container["securityContext"]
        assert (own["runAsNonRoot"], own["runAsUser"]) == (True, int(user))
        assert own["allowPrivilegeEscalation"] is False
        assert own["readOnlyRootFilesystem"] is True
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert own["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["resources"]["limits"]["memory"]
        assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
    if name != "kserve":  # its webhooks set these
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False


@pytest.mark.parametrize("name", OURS)
def test_the_probes_ask_routes_that_need_no_key(name):
    container = POD_SPECS[name]["containers"][0]
    probes = [value for key, value in container.items() if key.endswith("Probe")]
    assert len(probes) >= 2
    for probe in probes:
        assert probe["httpGet"]["path"] in HEALTH
    assert container["readinessProbe"]["httpGet"]["path"].endswith("ready")
    assert container["livenessProbe"]["httpGet"]["path"].endswith("live")


@pytest.mark.parametrize("name", OURS)
def test_the_state_folder_is_below_a_volume(name):
    (mount,) = [m for m in POD_SPECS[name]["containers"][0]["volumeMounts"] if m["name"] == "state"]
    assert variables(name)["ISOSERVE_STATE_DIR"].startswith(mount["mountPath"] + "/")


@pytest.mark.parametrize("name", ["seldon", "kserve"])
def test_the_pod_specs_of_other_operators_are_pod_specs(name):
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": POD_SPECS[name]}
    validate(pod, SCHEMAS, strict=True)


def test_each_replica_is_scraped_once():
    objects = render(EXAMPLE)
    monitor = only(objects, "ServiceMonitor")["spec"]
    wanted = monitor["selector"]["matchLabels"].items()
    services = [one for (kind, _), one in objects.items() if kind == "Service"]
    scraped = [one for one in services if wanted <= one["metadata"]["labels"].items()]
    (service,) = scraped
    assert service["spec"]["clusterIP"] == "None"
    assert monitor["endpoints"][0]["port"] in [port["name"] for port in service["spec"]["ports"]]
    assert service["metadata"]["labels"][monitor["jobLabel"]].startswith("isoserve")


def test_selectors_find_the_pods_and_only_those():
    objects = render(EXAMPLE)
    pods = {
        name: one["spec"]["template"]["metadata"]["labels"].items()
        for (_, name), one in objects.items()
        if "template" in one.get("spec", {})
    }
    assert len(pods) == 2
    for (kind, name), one in objects.items():
        spec = one.get("spec", {})
        selector = {
            "Service": lambda spec: spec["selector"],
            "PodDisruptionBudget": lambda spec: spec["selector"]["matchLabels"],
            "NetworkPolicy": lambda spec: spec["podSelector"]["matchLabels"],
        }.get(kind)
        if selector:
            found = [pod for pod, labels in pods.items() if selector(spec).items() <= labels]
            assert found == [name.removesuffix("-replicas")], (kind, name)


def test_the_model_image_adds_nothing_but_the_model():
    lines = (FOLDER / "Dockerfile.model").read_text().splitlines()
    instructions = [line for line in lines if line and not line.startswith("#")]
    assert [line.split()[0] for line in instructions] == ["ARG", "FROM", "COPY"]
    assert instructions[2].endswith(" model.pickle model.json /models/")
