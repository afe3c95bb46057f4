"""Fuzz the parser or the model loader with atheris.

    python -m tests.stress.fuzz parser FOLDER [...]

Exit code 77: atheris is not installed; it has wheels for Linux on x86-64 only.
"""

import contextlib
import logging
import sys
import tempfile
import warnings
from pathlib import Path

try:
    import atheris
except ImportError:
    sys.exit(77)

with atheris.instrument_imports(include=["service"]):
    from service.errors import BadModel, Refusal
    from service.model.file import load_model
    from service.protocols.codec import JSON, unpack
    from service.protocols.mlflow import decode_request as decode_table
    from service.protocols.open_inference import decode_request
    from service.protocols.seldon.feedback import decode_feedback
    from service.protocols.seldon.messages import decode_echo
    from service.protocols.seldon.messages import decode_request as decode_message
    from service.rows import Limits

LIMITS = Limits(rows=1000, columns=64)
PATH = Path(tempfile.mkdtemp()) / "model.pickle"


READERS = (
    lambda data: decode_message(data, JSON, "", LIMITS).table.numbers(),
    lambda data: decode_feedback(data, JSON, "", LIMITS, str),
    lambda data: decode_echo(data, "multipart/form-data; boundary=-", "", LIMITS),
    lambda data: decode_echo(data, "application/x-www-form-urlencoded", "", LIMITS),
    lambda data: decode_echo(b"", "", data.decode("latin-1"), LIMITS),
    lambda data: decode_request(data, None, LIMITS).table.numbers(),
    lambda data: decode_request(data, str(len(data) // 2), LIMITS).table.numbers(),  # tensors
    lambda data: decode_table(data, JSON, LIMITS).numbers(),
    lambda data: decode_table(data, "text/csv", LIMITS).numbers(),
    lambda data: unpack(data, "gzip", 2**20),
)
"""Each function that reads a body."""


def parser(data):
    """Read a body in every protocol; only our own errors may be raised."""
    for read in READERS:
        try:
            read(data)
        except Refusal as refusal:
            assert str(refusal).isprintable() or "\n" not in str(refusal)


def loader(data):
    """Load a model file; only our own errors may be raised."""
    PATH.write_bytes(data)
    with contextlib.suppress(BadModel):
        load_model(PATH)


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    target = {"parser": parser, "loader": loader}[sys.argv[1]]
    atheris.Setup([sys.argv[0], *sys.argv[2:]], target)
    atheris.Fuzz()
