#!/bin/sh
# Makes the environment in .venv, or brings it up to date. `make` calls it when requirements.txt or
# pyproject.toml have changed. TORCH=cuda takes PyTorch's CUDA build instead of the CPU one.
set -eu
venv=${1:-.venv}

stop() {
    echo "Cannot make the environment: $*" >&2
    exit 1
}

fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2])' >/dev/null 2>&1; }

command -v git >/dev/null 2>&1 || stop "git is missing; install it and run make again."

if ! fits "$venv/bin/python"; then
    python=
    for name in ${PYTHON:-} python3.13 python3.12 python3.11 python3; do
        if fits "$name"; then
            python=$name
            break
        fi
    done
    if [ -z "$python" ]; then
        found=$(python3 --version 2>/dev/null || echo "no Python")
        stop "Python 3.11 or newer is needed and $found was found; install one (or name it: make PYTHON=/path/to/python)."
    fi
    "$python" -c 'import venv, ensurepip' >/dev/null 2>&1 ||
        stop "Python's venv module is missing; on Debian and Ubuntu it is the package python3-venv."
    echo "Making $venv with $("$python" --version)"
    "$python" -m venv --clear "$venv"
fi

if command -v uv >/dev/null 2>&1; then # the same packages, faster; uv does not read pip's settings
    if [ -n "${PIP_FIND_LINKS:-}" ]; then
        UV_FIND_LINKS=$(echo "$PIP_FIND_LINKS" | tr ' ' ',')
        export UV_FIND_LINKS
    fi
    install() { uv pip install -q --python "$venv/bin/python" "$@"; }
    remove() { uv pip uninstall -q --python "$venv/bin/python" "$@"; }
    install_plain() { UV_FIND_LINKS= install "$@"; }
else
    install() { "$venv/bin/python" -m pip install --disable-pip-version-check -q "$@"; }
    remove() { "$venv/bin/python" -m pip uninstall -q -y "$@"; }
    install_plain() { PIP_FIND_LINKS= install "$@"; }
fi

torch=$(sed -n 's/^torch==\([^ ]*\).*/\1/p' requirements.txt)
have=$("$venv/bin/python" -c 'from importlib.metadata import version; print(version("torch"))' 2>/dev/null || true)
tag=$("$venv/bin/python" -c 'import sys; print("cp%d%d" % sys.version_info[:2])')
local_wheel() { # does a folder named in PIP_FIND_LINKS hold this torch for this Python?
    for folder in ${PIP_FIND_LINKS:-}; do
        for wheel in "$folder/torch-$torch"*"-$tag-"*.whl; do [ -e "$wheel" ] && return 0; done
    done
    return 1
}

echo "Installing the packages in requirements.txt (the first time: some minutes, about 2 GB on disk)"
case "${TORCH:-cpu}:$have" in
    cuda:"$torch" | cuda:"$torch"+cu*) ;; # there already
    cuda:*)
        [ -z "$have" ] || remove torch
        install_plain "torch==$torch"
        ;;
    *:"$torch" | *:"$torch"+*) ;; # there already, whichever build
    *)
        if [ "$(uname)" = Linux ] && ! local_wheel; then
            install "torch==$torch" --index-url https://download.pytorch.org/whl/cpu
        else
            install "torch==$torch"
        fi
        ;;
esac
install -r requirements.txt
install --no-deps --no-build-isolation -e .
