#!/usr/bin/env bash
# Create a virtual environment with everything that mmwcc's demo or tests need, and install mmwcc
# into it (editable).
#
#   tools/misc/setup_env.sh [FOLDER]      FOLDER defaults to .venv, or .venv-STACK for another stack
#
# When it is run again, it does nothing unless something is missing, or one of the files that it
# depends on has changed. Environment variables:
#
#   PYTHON       the interpreter to use                    default: python3.11, or else python3
#   STACK        which libraries to install                default: upstream
#                  upstream    the releases of OpenMMLab
#                  onedl       the maintained forks of them, whose modules have the same names
#                  mmpretrain  upstream, torchvision and mmpretrain
#   TORCH        what to install as torch                  default: that of the stack
#   TORCH_ARGS   more arguments of pip for torch, for example an --index-url with builds for one CUDA
#                version or for CPU
#   EXTRAS       extras of mmwcc to install                default: openmmlab,cpu,triton,mim,dev; leave out triton
#                with torch older than 2.11, which pins an older one
#   MORE_EXTRAS  additional extras: `make docs` asks for docs
#   MAX_JOBS     number of parallel compiler processes     default: the number of cores
#
# The extra openmmlab needs the full mmcv, which may have to be compiled. For the extra demo alone,
# mmcv-lite and the stand-in of its operators in stand_ins/mmcv_ops.py are enough; a full mmcv that is
# there already is left as it is. On other stacks than upstream, openmmlab and demo both stand for the
# extras of the stack, with the full mmcv.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
STACK=${STACK:-upstream}
STAND_IN="$ROOT/stand_ins/mmcv_ops.py"

step() { printf '\n== %s [%d s so far]\n' "$*" "$SECONDS"; }
fail() { printf 'setup_env.sh: %s\n' "$*" >&2; exit 1; }

# The versions that mmwcc is tested with. LIBRARIES is the extra that requires them. RIVAL is a
# distribution whose modules have the names of this stack's: in one folder, their files would mix.
UPSTREAM='mmengine==0.10.7 mmsegmentation==1.2.2 mmdet==3.3.0'
case "$STACK" in
    upstream)
        TORCH=${TORCH:-torch==2.13.0}
        MMCV=mmcv MMCV_VERSION=2.1.0 LIBRARIES=openmmlab RIVAL=onedl-mmengine
        VERSIONS="$UPSTREAM mmcv-lite==$MMCV_VERSION"
        ;;
    onedl)
        TORCH=${TORCH:-torch==2.13.0}
        MMCV=onedl-mmcv MMCV_VERSION=2.3.6 LIBRARIES=onedl RIVAL=mmengine
        VERSIONS='onedl-mmengine==0.10.12 onedl-mmsegmentation==1.4.2 onedl-mmdetection==3.5.1'
        ;;
    mmpretrain)
        TORCH=${TORCH:-torch==2.14.1 torchvision==0.29.1}
        MMCV=mmcv MMCV_VERSION=2.1.0 LIBRARIES=mmpretrain RIVAL=onedl-mmengine
        VERSIONS="$UPSTREAM mmpretrain==1.2.0"
        ;;
    *) fail "STACK must be upstream, onedl or mmpretrain, got '$STACK'. Leave it out for upstream." ;;
esac
VENV=${1:-$ROOT/.venv$([ "$STACK" = upstream ] || echo "-$STACK")}
STAMP="$VENV/.mmwcc_setup"

EXTRAS=,${EXTRAS:-openmmlab,cpu,triton,mim,dev}${MORE_EXTRAS:+,$MORE_EXTRAS},
if [ "$STACK" != upstream ]; then
    EXTRAS=${EXTRAS/,openmmlab,/,$LIBRARIES,}
    EXTRAS=${EXTRAS/,demo,/,$LIBRARIES,cpu,}
fi
EXTRAS=${EXTRAS#,}
EXTRAS=${EXTRAS%,}

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

pip() { "$VENV/bin/python" -m pip --disable-pip-version-check --no-input "$@"; }
imports() { "$VENV/bin/python" -W ignore -c "import $1"; }
wants() { case ",$EXTRAS," in *",$1,"*) ;; *) return 1 ;; esac; }

fingerprint() {
    cd "$ROOT"
    { cat setup.py pyproject.toml tools/misc/setup_env.sh "$STAND_IN"
      echo "$ROOT $STACK $TORCH ${TORCH_ARGS:-}"; } | cksum
}

# The stamp of a finished set-up holds the fingerprint, followed by all extras that were installed
# with it, one a line.
installed_extras() {
    [ "$(head -n 1 "$STAMP" 2>/dev/null)" = "$(fingerprint)" ] && tail -n +2 "$STAMP"
}

is_set_up() {
    local installed extra
    installed=$(installed_extras) || return 1
    for extra in ${EXTRAS//,/ }; do
        grep -qxF -- "$extra" <<< "$installed" || return 1
    done
    [ -e "$ROOT/mmwcc/.mim/model-index.yml" ]
}

# Without the first line, installing torch also installs a setuptools without pkg_resources, which
# mmengine, the build of mmcv and openmim import.
write_constraints() {
    # shellcheck disable=SC2086  # VERSIONS is a list of words
    printf '%s\n' 'setuptools>=77.0.3,<81' "$MMCV==$MMCV_VERSION" $VERSIONS > "$VENV/constraints.txt"
    export PIP_CONSTRAINT="$VENV/constraints.txt"
}

refuse_mixture() {
    ! has_distribution "$RIVAL" ||
        fail "$VENV has $RIVAL, whose modules have the names of those of STACK=$STACK. Give each stack a" \
            "folder of its own (make: VENV), or remove this one."
}

mmcv_folder() { "$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("platlib") + "/mmcv")'; }
has_distribution() {
    "$VENV/bin/python" -c 'import importlib.metadata, sys; importlib.metadata.version(sys.argv[1])' "$1" 2>/dev/null
}
has_full_mmcv() { has_distribution "$MMCV" && ! has_distribution mmcv-lite && imports 'mmcv._ext, mmcv.ops' 2>/dev/null; }
has_lite_mmcv() { has_distribution mmcv-lite && cmp -s "$STAND_IN" "$(mmcv_folder)/ops/__init__.py"; }

# mmcv and mmcv-lite share the folder mmcv/, to which the stand-in is added. So the one goes before
# the other comes, and with it what an interrupted installation may have left.
remove_mmcv() {
    pip uninstall -q -y "$MMCV" mmcv-lite 2>/dev/null
    rm -rf "$(mmcv_folder)"
}

install_lite_mmcv() {
    remove_mmcv
    pip install "mmcv-lite==$MMCV_VERSION"
    mkdir -p "$(mmcv_folder)/ops"
    cp "$STAND_IN" "$(mmcv_folder)/ops/__init__.py"
}

# The wheel is made before anything is removed, so that an interrupted compilation leaves what was there.
install_full_mmcv() {
    build_mmcv_wheel "$@"
    remove_mmcv
    pip install -q "$VENV"/mmcv_wheel/*.whl
    rm -rf "$VENV/mmcv_wheel"
}

build_mmcv_wheel() {
    local log="$VENV/mmcv_build.log"
    rm -rf "$VENV/mmcv_wheel"
    if ! MAX_JOBS=${MAX_JOBS:-$(nproc 2>/dev/null || echo 2)} pip wheel -v --no-build-isolation --no-deps "$@" \
            --wheel-dir "$VENV/mmcv_wheel" "$MMCV==$MMCV_VERSION" 2>&1 |
            tee "$log" |
            awk 'match($0, /\[[0-9]+\/[0-9]+\]/) {print "   compiled", substr($0, RSTART, RLENGTH); fflush()}'; then
        tail -n 40 "$log" >&2
        fail "$MMCV could not be installed (above: the end of $log). Compiling it takes a C++ compiler and the header" \
             "files of Python (Debian and Ubuntu: g++ and python3-dev)."
    fi
}

install_mmcv() {
    if has_full_mmcv; then
        step "2/4 mmcv is installed already."
    elif wants "$LIBRARIES"; then
        step "2/4 $MMCV $MMCV_VERSION: where pip finds no wheel for this torch, it compiles one, about 10 minutes" \
            "on two free cores, once; pip keeps the wheel. Its whole output goes to $VENV/mmcv_build.log."
        install_full_mmcv
        # pip may have kept a wheel that was compiled for another torch, or one without operators:
        # setup.py of onedl-mmcv makes one where it finds no torch, as in pip's isolation.
        has_full_mmcv || install_full_mmcv --no-cache-dir
    elif ! has_lite_mmcv; then
        step "2/4 mmcv-lite $MMCV_VERSION and a stand-in for its operators: about half a minute once it is downloaded"
        install_lite_mmcv
    fi
}

# Two distributions of OpenCV provide the module cv2. mmengine requires the one with windows, which
# cannot be imported if the libraries of a desktop are missing.
install_headless_opencv_if_needed() {
    if ! imports cv2 2>/dev/null; then
        local version
        version=$(pip show opencv-python | sed -n 's/^Version: //p')
        pip install -q --no-deps --force-reinstall "opencv-python-headless==$version"
    fi
}

try_it() {
    if wants "$LIBRARIES" || wants demo; then
        install_headless_opencv_if_needed
        imports 'mmcv.ops, mmengine, mmseg'
    fi
    if wants "$LIBRARIES"; then imports mmdet; fi
    if wants mmpretrain; then imports mmpretrain; fi
    (cd "$VENV" && bin/python -c 'import mmwcc.kernels; print("mmwcc", mmwcc.__version__, "is ready.")')
}

main() {
    if is_set_up; then return; fi
    local python extras_before
    extras_before=$(installed_extras) || true
    python=$(find_python)
    step "Setting up $VENV with $("$python" --version)"
    [ -x "$VENV/bin/python" ] || "$python" -m venv "$VENV"
    refuse_mixture
    rm -f "$STAMP"
    write_constraints

    step "1/4 $TORCH: about half a minute once it is downloaded"
    # shellcheck disable=SC2086  # TORCH and TORCH_ARGS are lists of words
    pip install $TORCH ${TORCH_ARGS:-} 'setuptools>=77.0.3,<81' wheel ninja
    if wants "$LIBRARIES" || wants demo; then install_mmcv; fi

    step "3/4 mmwcc[$EXTRAS], editable: about half a minute once everything is downloaded"
    pip install --no-build-isolation -e "$ROOT[$EXTRAS]" | sed '/^Requirement already satisfied/d'

    step '4/4 Trying it: some seconds'
    try_it
    # shellcheck disable=SC2086  # lists of words
    { fingerprint; printf '%s\n' $extras_before ${EXTRAS//,/ }; } > "$STAMP"
}

main
