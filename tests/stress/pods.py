"""Run the rendered pod spec of deploy/kubernetes with podman and runc: no cluster, but real pods.

    python -m tests.stress.pods              the image `isoserve` of the Docker engine
    python -m tests.stress.pods --image X
    python -m tests.stress.pods --pods 1     of three

`kubectl kustomize` renders the manifests. podman runs three pods of the StatefulSet's template,
with its user, read-only root, dropped capabilities, ConfigMap and memory limit. This program does
the kubelet's part: volumes, probes, and the grace period. Exit code 77: something is missing.
"""

import argparse
import contextlib
import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from random import Random

import yaml

from tests.stress.storms.model import Model
from tests.support.running import ROOT, free_port, read_samples
from tests.support.tally import Tally

NEEDED = ("kubectl", "podman", "runc", "catatonit", "docker")
REPLICAS = 3
LIMITS = ["nofile=4096:4096", "nproc=4096:4096"]
"""Of every container, because podman would ask for more than this process may have."""

OVERLAY = """\
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [../../base]
components: [../../components/model-from-claim]
images: [{{name: isoserve-model, newName: localhost/isoserve, newTag: trial}}]
configMapGenerator:
  - {{name: isoserve-settings, behavior: merge, literals: [ISOSERVE_MODEL_SHA256={digest}]}}
"""


class Podman:
    """podman with a storage of its own, which is deleted in the end."""

    def __init__(self, folder):
        self._folder = folder
        storage = ["--root", folder / "root", "--runroot", folder / "run"]
        storage += ["--storage-driver", "overlay"]
        self._command = ["podman", "--runtime", "runc", "--cgroup-manager", "cgroupfs", *storage]
        policy = folder / "policy.json"
        policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        conf = folder / "containers.conf"
        conf.write_text(f'[containers]\nnetns = "host"\ndefault_ulimits = {json.dumps(LIMITS)}\n')
        self._environment = os.environ | {"CONTAINERS_CONF": str(conf)}

    def __call__(self, *arguments, check=True, **more):
        command = [*self._command, *arguments]
        options = {"capture_output": True, "text": True, "env": self._environment} | more
        done = subprocess.run(command, check=False, **options)
        if done.returncode and check:
            raise SystemExit(f"podman {' '.join(arguments)} failed: {done.stderr}")
        return done.stdout

    def close(self):
        """Delete all images, and unmount the storage, so that its folder can be deleted."""
        self("rmi", "--all", "--force", check=False)
        subprocess.run(["umount", self._folder / "root/overlay"], check=False, capture_output=True)

    def load(self, image):
        """Import an image of the Docker engine, as one layer."""
        docker = subprocess.run(
            ["docker", "image", "inspect", "--format", "{{json .Config}}", image],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        config = json.loads(docker.stdout)
        command = json.dumps(config["Cmd"], separators=(",", ":"))
        changes = [f"USER={config['User']}", f"CMD {command}"]
        changes += [f"ENV={variable}" for variable in config["Env"]]
        options = [option for change in changes for option in ("--change", change)]
        container = subprocess.run(
            ["docker", "create", image], check=True, capture_output=True, text=True
        ).stdout.strip()
        try:
            with subprocess.Popen(
                ["docker", "export", container], stdout=subprocess.PIPE
            ) as export:
                self("import", *options, "-", "localhost/isoserve:trial", stdin=export.stdout)
        finally:
            subprocess.run(["docker", "rm", container], check=True, capture_output=True)


class Pod:
    """One replica: the template of the StatefulSet, with what a cluster would add."""

    def __init__(self, number, template, settings, folder, models):
        self.name, self.port = f"isoserve-{number}", free_port()
        self.container_name = f"{self.name}-isoserve"
        self.template = template
        self.container = template["spec"]["containers"][0]
        self.settings, self._models = settings, models
        self.state = folder / self.name
        self.state.mkdir()
        group = template["spec"]["securityContext"]["fsGroup"]
        os.chown(self.state, 0, group)  # as the kubelet does with `fsGroup`
        self.state.chmod(0o2775)
        self.file = folder / f"{self.name}.yaml"
        self.file.write_text(yaml.safe_dump_all([settings, self.manifest()]))

    def manifest(self):
        """Return the pod, changed only where podman is not a kubelet."""
        pod = json.loads(json.dumps(self.template))
        spec = pod["spec"] | {"hostNetwork": True}
        paths = {"state": self.state, "models": self._models}
        spec["volumes"] = [
            {"name": name, "hostPath": {"path": str(path), "type": "Directory"}}
            for name, path in paths.items()
        ]
        container = spec["containers"][0]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            container.pop(probe)  # podman would run curl; this program asks instead
        container["ports"] = []
        # podman 4.3 reads these of the container only.
        shared = {key: spec["securityContext"][key] for key in ("runAsUser", "runAsGroup")}
        container["securityContext"] |= shared
        container["env"] = [
            {"name": "ISOSERVE_PORT", "value": str(self.port)},
            {"name": "ISOSERVE_HOST", "value": "127.0.0.1"},
        ]
        metadata = pod["metadata"] | {"name": self.name}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}

    def ask(self, method, path, body=None, timeout=10):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        with contextlib.closing(connection):
            connection.request(method, path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()

    def probe(self, name):
        """Ask a probe's path once; tell whether it holds."""
        probe = self.container[name]
        with contextlib.suppress(OSError, http.client.HTTPException):
            path = probe["httpGet"]["path"]
            return self.ask("GET", path, timeout=probe["timeoutSeconds"])[0] < 400
        return False

    def wait_until_ready(self):
        """Probe as a kubelet does, with the periods and limits of the manifest."""
        probe = self.container["startupProbe"]
        for _ in range(probe["failureThreshold"]):
            if self.probe("startupProbe"):
                break
            time.sleep(probe["periodSeconds"])
        limit = time.monotonic() + 30
        while not self.probe("readinessProbe"):
            assert time.monotonic() < limit, f"{self.name} is not ready"
            time.sleep(0.2)

    def samples(self):
        page = read_samples(self.ask("GET", "/metrics")[1].decode())
        return int(page["isoserve_samples_total", ()])


def render(folder, digest):
    """Return the StatefulSet's pod template, the ConfigMap and the number of replicas."""
    copy = folder / "kubernetes"
    shutil.copytree(ROOT / "deploy/kubernetes", copy)
    overlay = copy / "overlays/trial"
    overlay.mkdir()
    (overlay / "kustomization.yaml").write_text(OVERLAY.format(digest=digest))
    done = subprocess.run(
        ["kubectl", "kustomize", overlay], check=True, capture_output=True, text=True
    )
    objects = {one["kind"]: one for one in yaml.safe_load_all(done.stdout)}
    template = objects["StatefulSet"]["spec"]["template"]
    return template, objects["ConfigMap"], objects["HorizontalPodAutoscaler"]["spec"]["minReplicas"]


def check_confinement(tally, pod, pid):
    """Compare what the kernel says of the pod's first process with the manifest."""
    proc = Path(f"/proc/{pid}")
    status = dict(line.split(":\t", 1) for line in (proc / "status").read_text().splitlines())
    spec = pod.template["spec"]["securityContext"]
    root = next(
        line for line in (proc / "mountinfo").read_text().splitlines() if line.split()[4] == "/"
    )
    environment = (proc / "environ").read_bytes().decode().split("\0")
    cgroup = (proc / "cgroup").read_text().splitlines()
    path = next((line.split(":", 2)[2] for line in cgroup if line.startswith("0::")), None)
    limit = Path(f"/sys/fs/cgroup{path}/memory.max")
    said = {
        "user and group": (status["Uid"].split()[0], status["Gid"].split()[0])
        == (str(spec["runAsUser"]), str(spec["runAsGroup"])),
        "no capabilities": {status[name].strip("0") for name in ("CapEff", "CapPrm", "CapBnd")}
        == {""},
        "no new privileges": status["NoNewPrivs"] == "1",
        "seccomp": status["Seccomp"] == "2",
        "read-only root": "ro" in root.split()[5].split(","),
        "the ConfigMap": all(
            f"{name}={value}" in environment
            for name, value in pod.settings["data"].items()
            if name != "ISOSERVE_HOST"
        ),
        "memory limit": not limit.exists() or int(limit.read_text()) == 2 * 2**30,
    }
    for what, holds in said.items():
        tally.note(f"{pod.name}: {what}", "" if holds else "not as in the manifest")


def predict(pod, batch):
    """Return whether the pod labels as many rows of a batch outliers as scikit-learn does."""
    status, body = pod.ask("POST", "/predict", f'{{"data":{{"ndarray":{batch.rows}}}}}')
    found = sum(json.loads(body)["data"]["ndarray"]) if status == 200 else None
    return status == 200 and found == batch.tally.outliers


class Watcher(threading.Thread):
    """Asks a pod for predictions and its readiness until it no longer answers."""

    def __init__(self, pod, batch):
        super().__init__(daemon=True)
        self.pod, self.batch = pod, batch
        self.answered, self.wrong, self.unready, self.last = 0, 0, None, 0.0

    def run(self):
        with contextlib.suppress(OSError, http.client.HTTPException):
            while True:
                right = predict(self.pod, self.batch)
                self.answered, self.wrong = self.answered + 1, self.wrong + (not right)
                self.last = time.monotonic()
                if self.unready is None and self.pod.ask("GET", "/ready")[0] == 503:
                    self.unready = time.monotonic()
                time.sleep(0.01)


def check_stop(tally, podman, pod, batch):
    """Stop a pod as a kubelet does: it drains, and ends with 0 within the grace period."""
    grace = pod.template["spec"]["terminationGracePeriodSeconds"]
    watcher = Watcher(pod, batch)
    watcher.start()
    time.sleep(0.5)
    began = time.monotonic()
    podman("stop", "--time", str(grace), pod.container_name)
    took = time.monotonic() - began
    watcher.join(10)
    code = podman("inspect", "--format", "{{.State.ExitCode}}", pod.container_name).strip()
    drained = watcher.last - (watcher.unready or began)
    print(
        f"{pod.name}: not ready {(watcher.unready or 0) - began:.1f} s after SIGTERM, answered for "
        f"{drained:.1f} s more, ended after {took:.1f} s of {grace} with exit code {code}"
    )
    tally.note("unready at once", "" if watcher.unready else "still ready after SIGTERM")
    tally.note("answers while it drains", "" if not watcher.wrong else f"{watcher.wrong} wrong")
    tally.note("drains", "" if drained > 8 else f"only {drained:.1f} s")
    tally.note("ends in time", "" if took < grace - 5 else f"took {took:.1f} s of {grace}")
    tally.note("exit code", "" if code == "0" else code)
    return watcher.answered * batch.tally.rows


def run_pods(tally, podman, pods, batch):
    """Start the pods, look at them from outside, ask each, and stop and start the first."""
    for pod in pods:
        podman("kube", "play", "--network", "host", str(pod.file))
    for pod in pods:
        pod.wait_until_ready()
        pid = podman("inspect", "--format", "{{.State.Pid}}", pod.container_name).strip()
        check_confinement(tally, pod, pid)
        tally.note(f"{pod.name}: a prediction", "" if predict(pod, batch) else "wrong")
    sent = [batch.tally.rows] * len(pods)
    sent[0] += check_stop(tally, podman, pods[0], batch)
    podman("start", pods[0].container_name)
    pods[0].wait_until_ready()
    counted = [pod.samples() for pod in pods]
    tally.note("counts", "" if counted == sent else f"{counted} where {sent} were sent")


def try_pods(folder, image, number):
    """Run the pods and return what held."""
    tally = Tally("the rendered pod spec, run by podman and runc")
    models = folder / "models"
    models.mkdir()
    model = Model(models)
    models.chmod(0o755)
    digest = subprocess.run(["sha256sum", model.path], check=True, capture_output=True, text=True)
    template, settings, replicas = render(folder, digest.stdout.split()[0])
    tally.note("replicas", "" if replicas == REPLICAS else f"{replicas}")
    with contextlib.closing(Podman(folder)) as podman:
        podman.load(image)
        pods = [Pod(n, template, settings, folder, models) for n in range(number)]
        try:
            run_pods(tally, podman, pods, model.batch(16, Random(25)))
        finally:
            for pod in pods:
                podman("pod", "rm", "--force", "--time", "1", pod.name, check=False)
    return tally


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--image", default="isoserve", help="an image of the Docker engine")
    parser.add_argument("--pods", type=int, default=REPLICAS, help="how many are run")
    options = parser.parse_args()
    missing = [name for name in NEEDED if not shutil.which(name)]
    if os.getuid() or missing:
        print(f"the pod spec was NOT run: it needs root, and {', '.join(missing or NEEDED)}")
        return 77
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        tally = try_pods(folder, options.image, options.pods)
    print(f"{tally.title}: {tally.held} of {tally.tried} held", *tally.faults, sep="\n  ")
    return 1 if tally.faults else 0


if __name__ == "__main__":
    sys.exit(main())
