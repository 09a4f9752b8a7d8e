#!/usr/bin/env bash
# Create a virtual environment with pip: create-venv.sh PYTHON FOLDER
#
# Debian ships venv in a package of its own. As root it is installed here; otherwise the message
# says what to install.
set -euo pipefail
python=$1 folder=$2

if ! command -v "$python" >/dev/null 2>&1; then
  echo "no interpreter '$python': install Python 3.11 or newer, or call make PYTHON=/path/to/python3" >&2
  exit 2
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "bperp needs Python 3.11 or newer, found $("$python" --version): call make PYTHON=/path/to/python3" >&2
  exit 2
fi

create() {
  rm -rf "$folder"
  "$python" -m venv "$folder" >/dev/null 2>&1 && "$folder/bin/python" -m pip --version >/dev/null 2>&1
}

create && exit 0
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  echo "'$python -m venv' does not work here: installing python$version-venv"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "python$version-venv" ||
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv
  create && exit 0
fi
rm -rf "$folder"
echo "'$python -m venv' does not work here: install it with 'apt-get install python$version-venv' (Debian, Ubuntu) and call make again" >&2
exit 2
