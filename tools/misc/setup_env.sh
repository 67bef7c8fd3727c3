#!/usr/bin/env bash
# Create a virtual environment with everything that mmwcc's demo and tests need, and install mmwcc
# into it (editable).
#
#   tools/misc/setup_env.sh [FOLDER]      FOLDER defaults to .venv
#
# When it is run again, it does nothing unless one of the files that it depends on has changed.
# Environment variables:
#
#   PYTHON       the interpreter to use                    default: python3.11, or else python3
#   TORCH        what to install as torch                  default: torch==2.13.0
#   TORCH_ARGS   more arguments of pip for torch, for example an --index-url with builds for one CUDA
#                version or for CPU
#   EXTRAS       extras of mmwcc to install                default: openmmlab,cpu,triton,mim,dev; leave out triton
#                with torch older than 2.11, which pins an older one
#   MORE_EXTRAS  additional extras: `make docs` asks for docs
#   MAX_JOBS     number of parallel compiler processes     default: the number of cores
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
VENV=${1:-$ROOT/.venv}
TORCH=${TORCH:-torch==2.13.0}
EXTRAS=${EXTRAS:-openmmlab,cpu,triton,mim,dev}${MORE_EXTRAS:+,$MORE_EXTRAS}
MMCV=mmcv==2.1.0

say() { printf '\n== %s\n' "$*"; }
fail() { printf 'setup_env.sh: %s\n' "$*" >&2; exit 1; }

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.11 python3}; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    fail "no Python of version 3.10 or newer with the venv module among: ${PYTHON:-python3.11 python3}. Install" \
         "one (Debian and Ubuntu: python3.11 and python3.11-venv), or name one in PYTHON."
}

fingerprint() {
    cd "$ROOT"
    { cat setup.py pyproject.toml tools/misc/setup_env.sh; echo "$ROOT $TORCH ${TORCH_ARGS:-}"; } | cksum
}

# The stamp of a finished set-up holds the fingerprint, followed by every list of extras that was
# installed with it.
is_set_up() { [ "$(head -n 1 "$1" 2>/dev/null)" = "$(fingerprint)" ] && grep -qxF -- "$EXTRAS" "$1"; }

write_stamp() {
    [ "$(head -n 1 "$1" 2>/dev/null)" = "$(fingerprint)" ] || fingerprint > "$1"
    echo "$EXTRAS" >> "$1"
}

pip() { "$VENV/bin/python" -m pip --disable-pip-version-check --no-input "$@"; }

# The versions that mmwcc is tested with. Without the first line, installing torch also installs a
# setuptools without pkg_resources, which mmengine, the build of mmcv and openmim import.
write_constraints() {
    cat > "$VENV/constraints.txt" <<END
setuptools>=77.0.3,<81
mmengine==0.10.7
$MMCV
mmsegmentation==1.2.2
mmdet==3.3.0
END
    export PIP_CONSTRAINT="$VENV/constraints.txt"
}

install_mmcv() {
    if "$VENV/bin/python" -c 'import mmcv.ops' 2>/dev/null; then
        echo "mmcv is installed already."
        return
    fi
    local log="$VENV/mmcv_build.log"
    echo "Where pip finds no wheel of $MMCV for this torch, it compiles one: about 10 minutes on two free cores,"
    echo "once; pip keeps the wheel. Its whole output goes to $log."
    if ! MAX_JOBS=${MAX_JOBS:-$(nproc 2>/dev/null || echo 2)} pip install -v --no-build-isolation "$MMCV" 2>&1 |
            tee "$log" |
            awk 'match($0, /\[[0-9]+\/[0-9]+\]/) {print "   compiled", substr($0, RSTART, RLENGTH); fflush()}'; then
        tail -n 40 "$log" >&2
        fail "mmcv could not be installed (above: the end of $log). Compiling it takes a C++ compiler and the header" \
             "files of Python (Debian and Ubuntu: g++ and python3-dev)."
    fi
}

# Two distributions of OpenCV provide the module cv2. mmengine requires the one with windows, which
# cannot be imported if the libraries of a desktop are missing.
install_headless_opencv_if_needed() {
    if ! "$VENV/bin/python" -c 'import cv2' 2>/dev/null; then
        local version
        version=$(pip show opencv-python | sed -n 's/^Version: //p')
        pip install -q --no-deps --force-reinstall "opencv-python-headless==$version"
    fi
}

main() {
    local stamp="$VENV/.mmwcc_setup"
    if [ -e "$ROOT/mmwcc/.mim/model-index.yml" ] && is_set_up "$stamp"; then
        return
    fi
    local python
    python=$(find_python)
    say "Setting up $VENV with $("$python" --version)"
    [ -x "$VENV/bin/python" ] || "$python" -m venv "$VENV"
    write_constraints

    say "1/4 $TORCH"
    # shellcheck disable=SC2086  # TORCH and TORCH_ARGS are lists of words
    pip install $TORCH ${TORCH_ARGS:-} 'setuptools>=77.0.3,<81' wheel ninja

    case ",$EXTRAS," in *,openmmlab,*)
        say "2/4 $MMCV"
        install_mmcv
    esac

    say "3/4 mmwcc[$EXTRAS], editable"
    pip install --no-build-isolation -e "$ROOT[$EXTRAS]" | sed '/^Requirement already satisfied/d'

    say '4/4 Trying it'
    case ",$EXTRAS," in *,openmmlab,*)
        install_headless_opencv_if_needed
        "$VENV/bin/python" -c 'import mmcv.ops, mmdet, mmengine, mmseg'
    esac
    (cd "$VENV" && "$VENV/bin/python" -c 'import mmwcc.kernels; print("mmwcc", mmwcc.__version__, "is ready.")')
    write_stamp "$stamp"
}

main
