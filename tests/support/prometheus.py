"""Start a real Prometheus for a test."""

import os
import subprocess
from pathlib import Path

import yaml

from monitoring.panels import ask
from tests.support.running import ROOT, free_port


class Prometheus:
    """A real Prometheus with this repository's configuration and other targets."""

    def __init__(self, folder, targets, key=""):
        address = f"127.0.0.1:{free_port()}"
        self.url = f"http://{address}"
        chosen = yaml.safe_load((ROOT / "monitoring/prometheus.yml").read_text())
        compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"][
            "prometheus"
        ]
        chosen["global"] = dict.fromkeys(
            ("scrape_interval", "scrape_timeout", "evaluation_interval"), "1s"
        )
        chosen["rule_files"] = [str(ROOT / "monitoring" / name) for name in chosen["rule_files"]]
        (job,) = chosen["scrape_configs"]
        del job["dns_sd_configs"]
        job["static_configs"] = [{"targets": targets}]
        # The container's entrypoint writes the key into a file.
        _, _, script, name = compose["entrypoint"]
        script = script.replace("$$", "$").replace("/tmp/", f"{folder}/")
        credentials = job["authorization"]
        credentials["credentials_file"] = f"{folder}/{Path(credentials['credentials_file']).name}"
        (folder / "prometheus.yml").write_text(yaml.safe_dump(chosen))
        self._log = (folder / "prometheus.log").open("w")
        self._process = subprocess.Popen(
            [
                *("sh", "-c", script, name),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={address}",
            ],
            env=os.environ | {"ISOSERVE_API_KEY": key},
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def found(self, query):
        """Return whether a query has a result; False while Prometheus does not answer."""
        try:
            return bool(ask(self.url, query))
        except OSError:
            return False

    def value(self, query):
        """Return the value of a query with one series."""
        ((_, value),) = ask(self.url, query)
        return value

    def by_instance(self, query):
        """Return {instance: value} of a query."""
        return {labels["instance"]: value for labels, value in ask(self.url, query)}

    def stop(self):
        self._process.kill()
        self._process.wait()
        self._log.close()
