#!/bin/sh
# Re-runs chapter notebooks and stores their outputs and times: the named one, or all in _toc.yml.
set -eu
python=$1
pages=${2:+chapters/$2}
export OMP_NUM_THREADS=1 # as in the tests; and the header's seconds are those of one core
for page in ${pages:-$(sed -n 's/.*file: *\([^ #]*\).*/\1/p' _toc.yml)}; do
    if [ -f "$page.ipynb" ]; then
        "$python" scripts/measures.py --execute "$page.ipynb"
        "$python" scripts/outputs.py "$page.ipynb"
    elif [ -n "$pages" ]; then
        echo "There is no notebook $page.ipynb." >&2
        exit 1
    fi
done
"$python" scripts/assignments.py
"$python" scripts/colab.py
