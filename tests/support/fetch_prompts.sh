#!/usr/bin/env bash
# Fetches Debian's recorded English prompts, without installing them, and makes their manifests:
#   tests/support/fetch_prompts.sh FOLDER
# leaves FOLDER/{all,train,held_out}.jsonl and the clips. Needs apt-get and dpkg.
set -euo pipefail
here=$(cd "$(dirname "$0")/../.." && pwd)
folder=$1
[ -f "$folder/held_out.jsonl" ] && exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# apt drops its rights to a user that must be able to write here.
chmod 755 "$work"
cd "$work"
packages="asterisk-core-sounds-en-g722 asterisk-core-sounds-en"
apt-get download -o APT::Sandbox::User=root $packages ||
	{ apt-get update && apt-get download -o APT::Sandbox::User=root $packages; }
for package in *.deb; do dpkg -x "$package" unpacked; done
"$here/.venv/bin/python" "$here/samples/training/prompts.py" \
	--sounds unpacked/usr/share/asterisk/sounds/en_US_f_Allison \
	--sentences unpacked/usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz \
	--output "$work/made"
mkdir -p "$(dirname "$folder")"
rm -rf "$folder"
mv "$work/made" "$folder"
