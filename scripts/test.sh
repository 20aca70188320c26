#!/bin/sh
# Runs tests/ on all cores, then re-executes every notebook of _toc.yml. The second argument names a part of
# that: unit, site, notebooks or gpu. A whole run is skipped where nothing changed since the last green one;
# `again` runs all the same.
set -eu
python=$1
part=${2:-all}
export OMP_NUM_THREADS=1 # one thread a process: the processes share the cores

tests() { "$python" -m pytest -n logical --dist loadgroup "$@"; }

case $part in
    unit) tests tests --ignore tests/test_website.py --ignore tests/test_colab.py ;;
    site) tests tests/test_website.py tests/test_colab.py ;;
    notebooks) "$python" scripts/reexecute.py ;;
    gpu) "$python" -m pytest tests -k "gpu or cuda" ;;
    all | again) ;;
    *)
        echo "There is no part '$part' of the tests; name unit, site, notebooks or gpu." >&2
        exit 2
        ;;
esac
case $part in all | again) ;; *) exit 0 ;; esac

browser=no
for name in chromium chromium-browser google-chrome google-chrome-stable; do
    if command -v "$name" >/dev/null 2>&1; then browser=yes; fi
done
tree=$(sh scripts/tree.sh 2>/dev/null) || tree=
state="tree=$tree size=${OFFRL_SIZE:-book} browser=$browser $("$python" --version)"
if [ "$part" != again ] && [ -n "$tree" ] && [ "$(cat _build/tested 2>/dev/null)" = "$state" ]; then
    echo "Nothing changed since the last green run; make retest runs the tests anyway."
    exit 0
fi
rm -f _build/tested
tests tests
"$python" scripts/reexecute.py
[ -z "$tree" ] || echo "$state" >_build/tested
