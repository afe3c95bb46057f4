"""Let atheris loose on the parser or the model loader: python tests/fuzz.py parser FOLDER [...]

Exit code 77: there is no atheris here, which has wheels for Linux on x86-64 only.
"""

import contextlib
import logging
import sys
import tempfile
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

try:
    import atheris
except ImportError:
    sys.exit(77)

with atheris.instrument_imports(include=["service"]):
    from service.artifact import load_model
    from service.errors import BadModel, Refusal
    from service.rows import Limits
    from service.seldon_feedback import decode_feedback
    from service.seldon_v1 import decode_message
    from service.wire import decode_json

LIMITS = Limits(rows=1000, columns=64)
PATH = Path(tempfile.mkdtemp()) / "model.pickle"


def parser(data):
    """A body is read, or refused in words."""
    for decode in (decode_message, decode_feedback):
        try:
            decode_json(data, lambda value, decode=decode: decode(value, LIMITS), LIMITS.depth)
        except Refusal as refusal:
            assert str(refusal).isprintable() or "\n" not in str(refusal)


def loader(data):
    """A model file is loaded, or refused in words."""
    PATH.write_bytes(data)
    with contextlib.suppress(BadModel):
        load_model(PATH)


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    target = {"parser": parser, "loader": loader}[sys.argv[1]]
    atheris.Setup([sys.argv[0], *sys.argv[2:]], target)
    atheris.Fuzz()
