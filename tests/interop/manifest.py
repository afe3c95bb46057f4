"""Hold an InferenceService against the classes of kserve: no unknown field, no missing one.

.venv-clients/bin/python -m tests.interop.manifest FILE
"""

import sys
from pathlib import Path

import yaml
from kserve import models
from kubernetes.client import models as kubernetes


def faults(value, kind, path=""):
    """Yield a sentence for each field of a value that is not as its class has it."""
    kind = kind.replace("K8s", "")
    if kind.startswith("list["):
        for index, one in enumerate(value):
            yield from faults(one, kind[5:-1], f"{path}[{index}]")
        return
    cls = getattr(models, kind, None) or getattr(kubernetes, kind, None)
    if cls is None or not hasattr(cls, "openapi_types"):
        return  # a plain value
    if not isinstance(value, dict):
        yield f"{path} is no {kind}"
        return
    names = {name: attribute for attribute, name in cls.attribute_map.items()}
    for name, inner in value.items():
        if name not in names:
            yield f"{path}.{name} is no field of {kind}"
        else:
            yield from faults(inner, cls.openapi_types[names[name]], f"{path}.{name}")
    arguments = {names[name]: one for name, one in value.items() if name in names}
    try:
        cls(**arguments)
    except ValueError as error:
        yield f"{path}: {error}"


def main():
    (file,) = sys.argv[1:]
    value = yaml.safe_load(Path(file).read_text())
    found = list(faults(value, "V1beta1InferenceService"))
    print(*found or [f"{file} is a valid InferenceService"], sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
