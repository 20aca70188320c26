#!/bin/sh
# Executes a copy of one chapter at the small size, builds the site around it in _build/draft, and measures
# the chapter itself: its outputs and seconds are those of the last `make execute`.
set -eu
python=$1
page=chapters/$2
draft=_build/draft
if [ ! -f "$page.ipynb" ]; then
    echo "There is no notebook $page.ipynb." >&2
    exit 1
fi
mkdir -p "$draft"
rm -rf "$draft/chapters" "$draft/offrl_nb" "$draft/_static" "$draft/_ext"
cp -R _config.yml _toc.yml repository.yml index.md references.bib CITATION.cff _ext _static chapters \
    offrl_nb "$draft"
OFFRL_SIZE=fast "$python" -m jupyter nbconvert --to notebook --execute --inplace \
    --ExecutePreprocessor.record_timing=False "$draft/$page.ipynb"
"$(dirname "$python")/jupyter-book" build "$draft" -q -n --keep-going >/dev/null
"$python" scripts/measures.py "$page.ipynb"
echo "The draft lies at $draft/_build/html/$page.html (small size, nothing stored)."
