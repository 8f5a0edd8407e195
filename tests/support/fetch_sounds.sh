#!/usr/bin/env bash
# Fetches Debian's recorded prompts of a language, without installing them:
#   tests/support/fetch_sounds.sh LANGUAGE FOLDER
# leaves FOLDER/**/*.g722, 16 kHz. Needs apt-get and dpkg.
set -euo pipefail
package=asterisk-core-sounds-$1-g722
folder=$(realpath -m "$2")
[ -d "$folder" ] && exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# apt drops its rights to a user that must be able to write here.
chmod 755 "$work"
cd "$work"
apt-get download -o APT::Sandbox::User=root "$package" ||
	{ apt-get update && apt-get download -o APT::Sandbox::User=root "$package"; }
dpkg -x "$package"_*.deb unpacked
mkdir -p "$(dirname "$folder")"
mv unpacked/usr/share/asterisk/sounds "$folder"
