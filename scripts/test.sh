#!/bin/sh
# Runs tests/, then re-executes every notebook of _toc.yml. `again` runs even where nothing changed.
set -eu
python=$1
browser=no
for name in chromium chromium-browser google-chrome google-chrome-stable; do
    if command -v "$name" >/dev/null 2>&1; then browser=yes; fi
done
tree=$(sh scripts/tree.sh 2>/dev/null) || tree=
state="tree=$tree size=${OFFRL_SIZE:-book} browser=$browser $("$python" --version)"
if [ "${2:-}" != again ] && [ -n "$tree" ] && [ "$(cat _build/tested 2>/dev/null)" = "$state" ]; then
    echo "Nothing changed since the last green run; make retest runs the tests anyway."
    exit 0
fi
rm -f _build/tested
export OMP_NUM_THREADS=1

"$python" -m pytest tests

"$python" scripts/reexecute.py
[ -z "$tree" ] || echo "$state" >_build/tested
