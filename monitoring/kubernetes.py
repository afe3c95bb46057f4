"""Write the rules of monitoring/rules as a PrometheusRule, for the Prometheus Operator.

python -m monitoring.kubernetes
"""

from pathlib import Path

RULES = Path(__file__).parent / "rules"
TARGET = Path(__file__).parents[1] / "deploy/kubernetes/components/monitoring/prometheusrule.yaml"

_HEAD = """\
# Written by `python -m monitoring.kubernetes` from monitoring/rules. Do not edit it.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: isoserve
  labels: {app.kubernetes.io/name: isoserve}
spec:
  groups:
"""


def render(folder: Path = RULES) -> str:
    """Return the groups of all rule files as one PrometheusRule, in YAML, with their comments."""
    groups = (path.read_text().partition("\ngroups:\n")[2] for path in sorted(folder.glob("*.yml")))
    lines = "".join(groups).splitlines()
    return _HEAD + "".join(f"  {line}".rstrip() + "\n" for line in lines)


if __name__ == "__main__":
    TARGET.write_text(render())
    print(f"wrote {TARGET}")
