import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from numba import config, types
from numba.core.errors import TypingError

from service.model.jit import compile_ahead

SERVICE = Path(__file__).parents[3] / "service"

TINY = """
from numba import types
from .jit import compile_ahead

def double(x, out):
    for i in range(x.size):
        out[i] = 2 * x[i]

kernel = compile_ahead(double, types.float64[::1], types.float64[::1])
"""

USE = """
import numpy as np
from package.tiny import kernel
out = np.empty(2)
kernel(np.array([1.0, 2.5]), out)
print(out.tolist(), sum(kernel.stats.cache_hits.values()))
"""

# Root may write anywhere; without the capability CAP_DAC_OVERRIDE (1) it is like any other user.
UNPRIVILEGED = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@pytest.fixture
def package(tmp_path):
    """A package with a compiled function."""
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "tiny.py").write_text(TINY)
    shutil.copy(SERVICE / "model" / "jit.py", folder)
    yield folder
    for place in (folder, folder / "__pycache__"):
        place.chmod(0o755) if place.exists() else None


def run(package, code=USE, **variables):
    """Run code beside the package, without a home and without write permission elsewhere."""
    environment = os.environ | {"HOME": "/nonexistent", "NUMBA_CACHE_DIR": ""} | variables
    environment.pop("XDG_CACHE_HOME", None)
    return subprocess.run(
        [sys.executable, "-c", UNPRIVILEGED, "-W", "error", "-c", code],
        cwd=package.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def lock(package):
    """Make the package's folders read-only."""
    for place in (package / "__pycache__", package):
        place.mkdir(exist_ok=True)
        place.chmod(0o555)
    probe = run(package, "open('package/__pycache__/x', 'w')")
    assert "PermissionError" in probe.stderr


def test_machine_code_is_cached_beside_the_module_and_read_from_a_read_only_folder(package):
    assert run(package).stdout == "[2.0, 5.0] 0\n"
    assert list((package / "__pycache__").glob("tiny.double-*.nbi"))
    lock(package)
    result = run(package)
    assert (result.stdout, result.stderr) == ("[2.0, 5.0] 1\n", "")


def test_whether_machine_code_is_kept_is_known_before_anything_is_compiled(package):
    (package / "plain.py").write_text("def double(x):\n    return 2 * x\n")
    ask = "from package import jit, plain; print(jit.is_cached(plain.double))"
    assert run(package, ask).stdout == "False\n"
    assert not list((package / "__pycache__").glob("*.nbi"))
    (package / "__pycache__" / "plain.double-2.py312.nbi").touch()
    assert run(package, ask).stdout == "True\n"
    assert run(package, ask, NUMBA_DISABLE_JIT="1").stdout == "False\n"
    (package / "__pycache__" / "plain.double-2.py312.nbi").unlink()
    lock(package)
    assert run(package, ask).stdout == "False\n"


@pytest.mark.slow
def test_machine_code_is_cached_in_numba_cache_dir(package, tmp_path):
    variables = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    assert run(package, **variables).stdout == "[2.0, 5.0] 0\n"
    assert not list((package / "__pycache__").glob("*.nbi"))
    assert run(package, **variables).stdout == "[2.0, 5.0] 1\n"


@pytest.mark.slow
def test_without_a_writable_folder_functions_still_compile(package):
    lock(package)
    result = run(package)
    assert (result.stdout, result.stderr) == ("[2.0, 5.0] 0\n", "")


@pytest.mark.slow
def test_machine_code_of_another_processor_is_not_used_or_replaced(package):
    run(package, NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="")
    lock(package)
    result = run(package)
    assert (result.stdout, result.stderr) == ("[2.0, 5.0] 0\n", "")


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
def test_a_damaged_cache_file_is_replaced(package, suffix):
    run(package)
    (file,) = (package / "__pycache__").glob(f"tiny.double-*.{suffix}")
    file.write_bytes(file.read_bytes()[:50])
    result = run(package)
    assert (result.stdout, result.stderr) == ("[2.0, 5.0] 0\n", "")
    assert run(package).stdout == "[2.0, 5.0] 1\n"


@pytest.mark.slow
def test_a_damaged_cache_file_in_a_read_only_folder_is_ignored(package):
    run(package)
    (file,) = (package / "__pycache__").glob("tiny.double-*.nbi")
    file.write_bytes(b"damaged")
    lock(package)
    result = run(package)
    assert (result.stdout, result.stderr) == ("[2.0, 5.0] 0\n", "")
    assert file.read_bytes() == b"damaged"


def test_errors_of_the_function_are_raised_and_numbas_global_setting_is_unchanged():
    def wrong(out):
        out[0] = "text"

    before = config.CACHE_LOCATOR_CLASSES
    with pytest.raises(TypingError, match="text"):
        compile_ahead(wrong, types.float64[::1])
    assert before == config.CACHE_LOCATOR_CLASSES


@pytest.mark.slow
def test_an_operator_can_choose_other_cache_locators(package):
    result = run(package, NUMBA_CACHE_LOCATOR_CLASSES="UserProvidedCacheLocator")
    assert (result.stdout, result.stderr) == ("[2.0, 5.0] 0\n", "")
    assert not list((package / "__pycache__").glob("*.nbi"))


def test_functions_compile_on_a_full_disk(package):
    full = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
    result = run(package, full + USE)
    assert (result.stdout, result.stderr) == ("[2.0, 5.0] 0\n", "")


def test_a_variable_that_forbids_to_compile_is_named(tmp_path):
    code = "from service.model.scorer import compile_kernels; compile_kernels()"
    variables = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=False
    )
    assert "BadSetting: NUMBA_DISABLE_JIT is set" in done.stderr
