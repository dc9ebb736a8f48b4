#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Brings a machine that has only git and make to where the CMake presets work:
#   1. Debian's packages: the compiler, headers, Python's venv module;
#   2. build/venv: a Python virtual environment with the pinned wheels of cmake/requirements*.txt (Halide, CMake, ...).
# Each step looks first and does nothing when nothing is missing.
#
#   cmake/setup.sh [bench] [ci]      extras: requirements-bench.txt (with llvm-mca), requirements-ci.txt (with cross tools from Debian)
#
# Environment: PYTHON = the interpreter to make the environment from; HRNN_NO_APT=1 = never install system packages,
# say what is missing instead.
set -eu

cd "$(dirname "$0")/.."
venv=$PWD/build/venv
say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }

extras=
for extra in "$@"; do
  [ -f "cmake/requirements-$extra.txt" ] || die "unknown extra '$extra'; known: bench ci"
  extras="$extras $extra"
done

# ---- Debian's packages ---------------------------------------------------------------------------------------------

packages='g++ libc6-dev python3 python3-venv pkg-config protobuf-compiler libprotobuf-dev libzip-dev zlib1g-dev
  libelf-dev libcli11-dev nlohmann-json3-dev libfmt-dev libgtest-dev libgmock-dev'
case " $extras " in
  *' bench '*) packages="$packages llvm-19 binutils-aarch64-linux-gnu" ;;
esac
case " $extras " in
  *' ci '*)
    packages="$packages clang libclang-rt-dev g++-aarch64-linux-gnu qemu-user pocl-opencl-icd ocl-icd-libopencl1 ocl-icd-opencl-dev" ;;
esac

# A compiler of the user's own choice serves as well as Debian's.
if [ -n "${CXX:-}" ] && command -v "${CXX%% *}" >/dev/null 2>&1; then
  packages=$(printf '%s' "$packages" | sed 's/^g++ //')
fi

if command -v dpkg-query >/dev/null 2>&1; then
  # dpkg-query fails when it does not know a package; what it prints about the others still counts.
  # shellcheck disable=SC2086  # a list of words
  installed=$(dpkg-query -W -f='${db:Status-Status} ${Package}\n' $packages 2>/dev/null || true)
  missing=
  for package in $packages; do
    printf '%s\n' "$installed" | grep -qxF "installed $package" || missing="$missing $package"
  done
  if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ]; then
      as_root=
    elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
      as_root='sudo -n'
    else
      as_root=none
    fi
    [ "${HRNN_NO_APT:-0}" = 0 ] || as_root=none
    if [ "$as_root" = none ]; then
      say 'these packages are missing; install them with this line, then run the same command again:'
      printf '\n  sudo apt-get update && sudo apt-get install -y --no-install-recommends%s\n\n' "$missing" >&2
      exit 1
    fi
    say "installing from Debian's packages:$missing"
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    # An index that cannot be refreshed may still do; the installation below says whether it does.
    $as_root apt-get update -q >"$log" 2>&1 || say "warning: 'apt-get update' failed: $(tail -n 1 "$log")"
    # shellcheck disable=SC2086
    if ! $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing \
        >"$log" 2>&1; then
      tail -n 15 "$log" >&2
      die 'apt-get could not install them (its last lines stand above). Is there a network, and are the package' \
          "sources complete (on Ubuntu: 'universe')? To try by hand: apt-get install$missing"
    fi
  fi
elif [ ! -d "$venv" ]; then
  say "not a Debian or Ubuntu system: if the build misses something, install your system's counterpart of:"
  # shellcheck disable=SC2086
  say $packages
fi

# ---- The virtual environment ---------------------------------------------------------------------------------------

requirements=cmake/requirements.txt
for extra in $extras; do requirements="$requirements cmake/requirements-$extra.txt"; done

# What an environment holds is written in installed.txt when all of it is there: a checksum and a name a file, so that a
# run without extras finds a richer environment good enough.
# shellcheck disable=SC2086
wanted=$(sha256sum $requirements)
up_to_date() {
  [ -x "$venv/bin/cmake" ] && [ -x "$venv/bin/ninja" ] && [ -f "$venv/installed.txt" ] || return 1
  "$venv/bin/python" -c '' 2>/dev/null && grep -qF "$venv/bin/" "$venv/bin/cmake" || return 1 # not moved
  printf '%s\n' "$wanted" | while read -r line; do
    grep -qxF "$line" "$venv/installed.txt" || exit 1
  done
}
up_to_date && exit 0

mkdir -p build
if command -v flock >/dev/null 2>&1; then # two at once: the second waits, and finds the work done
  exec 9>build/setup.lock
  flock 9
  up_to_date && exit 0
fi

usable() { # wheels exist for these versions; `ensurepip` is what Debian ships apart, in python3-venv
  "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}
python=
for candidate in ${PYTHON:-/usr/bin/python3 python3 python3.13 python3.12 python3.11}; do
  if command -v "$candidate" >/dev/null 2>&1 && usable "$candidate"; then python=$candidate; break; fi
done
[ -n "$python" ] || die "no usable Python found: 3.11 to 3.13 with the venv module (Debian: python3-venv)." \
  "${PYTHON:+PYTHON=$PYTHON is not. }Another one: PYTHON=/path/to/python3 make ..."

# An environment that was made elsewhere, from another interpreter or cut short, is made again.
if [ ! -x "$venv/bin/pip" ] || ! "$venv/bin/pip" --version >/dev/null 2>&1 ||
   ! grep -qF "$venv/bin/" "$venv/bin/pip"; then
  say "making a virtual environment in build/venv with $("$python" --version)"
  rm -rf "$venv"
  "$python" -m venv "$venv" || die "'$python -m venv' failed (its message stands above)"
fi

say "installing the pinned Python packages of $requirements"
arguments=
for file in $requirements; do arguments="$arguments -r $file"; done
# shellcheck disable=SC2086
"$venv/bin/pip" --disable-pip-version-check install --quiet --no-deps --only-binary :all: $arguments || die \
  "pip could not install them (its message stands above). Is the package index reachable from here? Behind a proxy or" \
  "a mirror: set HTTPS_PROXY, PIP_INDEX_URL or PIP_CERT as pip documents them, then run the same command again"
# PyTorch's Python part is never used, so what it needs is not there.
"$venv/bin/pip" --disable-pip-version-check check | grep -v '^torch ' | grep -q ' requires \| requirement ' &&
  die "the installed Python packages do not fit together; see '$venv/bin/pip check'"

# ptxas lies deep in its wheel.
for ptxas in "$venv"/lib/python3*/site-packages/nvidia/cuda_nvcc/bin/ptxas; do
  [ ! -f "$ptxas" ] || ln -sf "$ptxas" "$venv/bin/ptxas"
done

# Lines of other extras that are still installed stay.
{ printf '%s\n' "$wanted"; [ ! -f "$venv/installed.txt" ] || cat "$venv/installed.txt"; } |
  sort -u -k2,2 -s >"$venv/installed.tmp"
mv "$venv/installed.tmp" "$venv/installed.txt"
