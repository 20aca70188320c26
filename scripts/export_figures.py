"""Write the figures that pages outside the chapters show: a cell whose metadata says
`offrl: {save: _static/name.png}` has its figure copied there (`make execute` calls this).

With --check: change nothing, exit 1 and name the files that are not what the chapter shows.
"""

import base64
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def figures() -> dict[Path, bytes]:
    found = {}
    for notebook in sorted((ROOT / "chapters").glob("*.ipynb")):
        for cell in json.loads(notebook.read_text())["cells"]:
            if target := cell["metadata"].get("offrl", {}).get("save"):
                images = [
                    output["data"]["image/png"]
                    for output in cell["outputs"]
                    if "image/png" in output.get("data", {})
                ]
                if not images:
                    raise SystemExit(f"{notebook.name} has no outputs; run `make execute`.")
                found[ROOT / target] = base64.b64decode("".join(images[-1]))
    return found


def main(check: bool) -> int:
    stale = {p: png for p, png in figures().items() if not p.exists() or p.read_bytes() != png}
    for path, png in stale.items():
        if check:
            print(f"{path.relative_to(ROOT)} is not what its chapter shows; run `make execute`.")
        else:
            path.write_bytes(png)
            print(f"wrote {path.relative_to(ROOT)}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
