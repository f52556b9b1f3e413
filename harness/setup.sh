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

missing_packages() {
	command -v bwrap >/dev/null || echo bubblewrap
	command -v dpkg-deb >/dev/null || echo dpkg
	command -v tar >/dev/null || echo tar
	[ -e /etc/ssl/certs/ca-certificates.crt ] || echo ca-certificates
	# Debian has pip for virtual environments in a package of its own.
	python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
}

install_packages() {
	if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
		echo "Some programs are missing. On Debian this installs them (as root):" >&2
		echo "  apt-get update && apt-get install --no-install-recommends $*" >&2
		exit 2
	fi
	echo "Installing Debian packages: $*" >&2
	apt-get update -qq >&2
	DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" </dev/null >&2
}

python_is_ours() {
	[ "$(.venv/bin/python -c 'import sys; print(sys.version_info[:3])' 2>/dev/null)" = \
	  "$(python3 -c 'import sys; print(sys.version_info[:3])')" ]
}

make_environment() {
	python3 - <<-'PYTHON' || exit 2
		import sys
		if sys.version_info < (3, 11):
		    sys.exit(f"Python 3.11 or later is needed, this is {sys.version.split()[0]}")
	PYTHON
	if ! cmp -s $lock $done_lock || ! python_is_ours; then
		echo "Installing the locked Python packages into .venv" >&2
		rm -f $done_lock $done_project
		python3 -m venv --clear .venv
		.venv/bin/pip install $quiet --disable-pip-version-check --require-hashes --only-binary :all: \
			-r $lock >&2
		cp $lock $done_lock
	fi
	# The package itself: a link to this checkout, and the command `samepage`.
	.venv/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable . >&2
	cp pyproject.toml $done_project
}

packages=$(missing_packages)
# shellcheck disable=SC2086 # one word a package
[ -z "$packages" ] || install_packages $packages

mkdir -p .venv
exec 9<.venv
flock 9 # somebody else may be setting up as well
if ! cmp -s $lock $done_lock || ! cmp -s pyproject.toml $done_project || ! python_is_ours; then
	make_environment || { echo "Setting up .venv failed: see above." >&2; exit 2; }
fi
