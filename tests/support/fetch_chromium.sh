#!/usr/bin/env bash
# Fetches Debian's Chromium and those of its libraries that are not here, without installing them:
#   tests/support/fetch_chromium.sh FOLDER
# leaves FOLDER/usr/lib/chromium/chromium, and the libraries in FOLDER/usr/lib. Needs apt-get and dpkg.
set -euo pipefail
folder=$(realpath -m "$1")
[ -d "$folder" ] && exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# apt drops its rights to a user that must be able to write here.
chmod 755 "$work"
cd "$work"
fetch() {
	missing=$(apt-get install --simulate --no-install-recommends chromium fonts-liberation |
		sed -n 's/^Inst \([^ ]*\) (.*/\1/p')
	apt-get download -o APT::Sandbox::User=root chromium chromium-common fonts-liberation $missing
}
fetch || { apt-get update && fetch; }
for package in *.deb; do dpkg -x "$package" unpacked; done
mkdir -p "$(dirname "$folder")"
rm -rf "$folder.part"
mv unpacked "$folder.part"
mv "$folder.part" "$folder"
