#!/bin/sh
# SPDX-License-Identifier: MIT
# Set up what the harness itself needs: Debian packages of the host (as root), and .venv from the locked list.
# Quick when nothing is missing; an interrupted set-up is begun again where it matters.
# Exit code 2 with the one line to run, when packages are missing and we are not root.
set -eu
cd "$(dirname "$0")/.."

lock=harness/requirements.lock
done_lock=.venv/installed.lock
done_project=.venv/installed.toml
quiet=--quiet # a person at a terminal sees pip's progress
[ ! -t 2 ] || quiet=

environment_is_done() {
	# The import fails after the host's Python was replaced by another version.
	cmp -s $lock $done_lock && cmp -s pyproject.toml $done_project && .venv/bin/python -c 'import msgspec' 2>/dev/null
}

programs_are_there() {
	command -v bwrap >/dev/null && command -v dpkg-deb >/dev/null && command -v tar >/dev/null
}

missing_packages() {
	command -v bwrap >/dev/null || echo bubblewrap
	command -v dpkg-deb >/dev/null || echo dpkg
	command -v tar >/dev/null || echo tar
	[ -e /etc/ssl/certs/ca-certificates.crt ] || echo ca-certificates
	# Debian keeps the pip of virtual environments in a package of its own.
	python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
}

install_packages() {
	if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
		echo "Some programs are missing. On Debian this installs them, as root:" >&2
		echo "  apt-get update && apt-get install --no-install-recommends $*" >&2
		exit 2
	fi
	echo "Installing Debian packages: $*" >&2
	apt-get update -qq >&2
	DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" </dev/null >&2
}

require_python() {
	python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
		echo "Python 3.11 or later is needed, this is $(python3 --version)" >&2
		exit 2
	}
}

make_environment() {
	if ! cmp -s $lock $done_lock || ! .venv/bin/python -c 'import msgspec' 2>/dev/null; then
		echo "Installing the locked Python packages into .venv" >&2
		rm -f $done_lock $done_project
		python3 -m venv --clear .venv
		.venv/bin/pip install $quiet --disable-pip-version-check --require-hashes --only-binary :all: -r $lock >&2
		cp $lock $done_lock
	fi
	# The package itself: a link to this checkout, and the command `samepage`.
	.venv/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable . >&2
	cp pyproject.toml $done_project
}

say_if_failed() {
	[ $? = 0 ] || { echo "Set-up failed: see above." >&2; exit 2; }
}

if environment_is_done && programs_are_there; then
	exit 0
fi
trap say_if_failed EXIT # not "||", which would let a failing step go on to the next
packages=$(missing_packages)
# shellcheck disable=SC2086 # one word a package
[ -z "$packages" ] || install_packages $packages
require_python
mkdir -p .venv
exec 9<.venv
flock 9 # somebody else may be setting up as well
if ! environment_is_done; then
	make_environment
fi
