# Functions for .ci/run and .ci/nightly, which read this file with `source`.

# Starts a Docker engine and makes base images, on machines that cannot pull them.
docker_tools=../shared/docker

times=()
took() { # NAME SECONDS [VERDICT]: a line of the table at the end
    times+=("$(printf '%6d s  %-44s %s' "$2" "$1" "${3:-}")")
}

print_times() { printf '\n'; printf '%s\n' "${times[@]}"; }

find_python() { # VERSION: one that runs, from PATH or pyenv, or nothing
    local python
    for python in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin/python"$1"; do
        if "$python" --version >/dev/null 2>&1; then
            echo "$python"
            return
        fi
    done
}

install_missing() { # COMMAND=PACKAGE...: what is missing, if apt-get can install it
    local missing=() pair
    for pair in "$@"; do
        command -v "${pair%=*}" >/dev/null || missing+=("${pair#*=}")
    done
    if [ "${#missing[@]}" -gt 0 ] && command -v apt-get >/dev/null; then
        apt-get -qq update
        apt-get -qq install --yes --no-install-recommends "${missing[@]}" >/dev/null
    fi
}

install_tools() { # system tools that tests use
    install_missing promtool=prometheus nginx=nginx wrk=wrk chromium=chromium
}

test_with() { # VERSION MARKERS: run the tests with another Python; 77 if it is missing
    local python
    python=$(find_python "$1")
    if [ -z "$python" ]; then
        echo "no Python $1 here: NOT tested with it"
        return 77
    fi
    make ".venv-$1/all.stamp" PYTHON="$python" VENV=".venv-$1" &&
        ".venv-$1/bin/python" -m pytest -n 3 --dist worksteal -m "$2"
}
