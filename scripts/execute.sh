#!/bin/sh
# Re-runs chapter notebooks and stores their outputs: the named one, or all in _toc.yml.
set -eu
python=$1
pages=${2:+chapters/$2}
for page in ${pages:-$(sed -n 's/.*file: *\([^ #]*\).*/\1/p' _toc.yml)}; do
    if [ -f "$page.ipynb" ]; then
        "$python" -m jupyter nbconvert --to notebook --execute --inplace \
            --ExecutePreprocessor.record_timing=False "$page.ipynb"
        "$python" scripts/outputs.py "$page.ipynb"
    elif [ -n "$pages" ]; then
        echo "There is no notebook $page.ipynb." >&2
        exit 1
    fi
done
"$python" scripts/assignments.py
