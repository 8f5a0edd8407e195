#!/bin/sh
# MkDocs 1.6.1: `mkdocs build --strict --quiet` passes a site with broken links.
#
# Good guess: --strict decides what fails, and --quiet what is printed.
# Seen: strict mode counts the warnings that are logged, and --quiet raises the level of the logger above them. A CI
# job that runs both never fails.
#   --strict: exit status 1
#   --strict --quiet: exit status 0
# Exits 1 if that changes.
set -e
T="$(mktemp -d)"; trap 'rm -rf "$T"' EXIT
python3 -m venv "$T/v"; "$T/v/bin/pip" -q install mkdocs==1.6.1
mkdir "$T/docs"; echo "[a page](nowhere.md)" > "$T/docs/index.md"; echo "site_name: s" > "$T/mkdocs.yml"
cd "$T"
set +e
"$T/v/bin/mkdocs" build --strict >/dev/null 2>&1; STRICT=$?
"$T/v/bin/mkdocs" build --strict --quiet >/dev/null 2>&1; QUIET=$?
echo "--strict: exit status $STRICT"
echo "--strict --quiet: exit status $QUIET"
[ "$STRICT" = 1 ] && [ "$QUIET" = 0 ]
