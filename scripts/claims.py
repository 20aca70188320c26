"""Judge a chapter's claims on three disjoint blocks of seeds (`make claims CH=bc`).

Runs a copy of the notebook with SEEDS = 200-204, 300-304 and 400-404 in place of the reported 0-4 and
prints every claim with its numbers. A measured claim is committed only if it held in all three, with its
threshold half-way to the worst. A false claim does not stop the run.
"""

import re
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

BLOCKS = (200, 300, 400)


def run(path: Path, first: int) -> list[str]:
    """The lines that the chapter's claims print with seeds first .. first + 4."""
    notebook = nbformat.read(path, 4)
    count = 0
    for cell in notebook.cells:
        if cell.cell_type == "code":
            replaced = f"SEEDS = range({first}, {first + 5})"
            cell.source, n = re.subn(r"(?m)^SEEDS = range\(5\)$", replaced, cell.source)
            count += n
    if count != 1:
        raise SystemExit(f"{path} must say `SEEDS = range(5)` exactly once, on a line of its own.")
    NotebookClient(notebook, timeout=600, allow_errors=True).execute(cwd=str(path.parent))
    lines = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            lines += [
                line for line in output.get("text", "").splitlines() if line.startswith(("✓", "✗"))
            ]
            if output.output_type == "error":
                lines.append(f"✗ {output.ename}: {output.evalue}")
    return lines


if __name__ == "__main__":
    if len(sys.argv) != 2 or not Path(sys.argv[1]).exists():
        raise SystemExit("usage: python scripts/claims.py chapters/<slug>.ipynb")
    false = 0
    for first in BLOCKS:
        lines = run(Path(sys.argv[1]), first)
        false += sum(line.startswith("✗") for line in lines)
        print(f"seeds {first}-{first + 4}", *lines, sep="\n  ", flush=True)
    sys.exit(1 if false else 0)
