"""Tidy a notebook's outputs (`make execute` calls this for each notebook it has run).

Of a progress bar only what a terminal would show at the end is kept. A figure gets a palette of 256 colours and loses what its PNG says about its making, so that the same figure
is the same bytes. One whose cell says `offrl: {save: _static/name.png}` is copied there too: pages outside
the chapters show it.

With --check: change nothing, exit 1 and name the copies that are not what their chapter shows.
"""

import base64
import io
import json
import re
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]


def smaller(png: bytes) -> bytes:
    """The same picture with at most 256 colours; as it is where it has a palette already or is see-through."""
    image = Image.open(io.BytesIO(png))
    if image.mode == "P" or image.convert("RGBA").getextrema()[3][0] < 255:
        return png
    found = io.BytesIO()
    image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(found, "PNG", optimize=True)
    return found.getvalue()


def pictures(cell: dict):
    """The parts of a cell's outputs that hold a PNG."""
    for output in cell.get("outputs", []):
        if "image/png" in output.get("data", {}):
            yield output["data"]


def settled(outputs: list[dict]) -> list[dict]:
    """Streams joined, and of each line only what stands after its last carriage return."""
    kept = []
    for output in outputs:
        text = "".join(output.get("text", ""))
        if kept and output["output_type"] == kept[-1]["output_type"] == "stream":
            kept[-1]["text"] += text
        else:
            kept.append(output | {"text": text} if output["output_type"] == "stream" else output)
    for output in kept:
        if output["output_type"] == "stream":
            lines = re.findall(r"[^\n]*\n|[^\n]+", output["text"])
            shown = [line.rpartition("\r") for line in lines]
            output["text"] = [text for _, bar, text in shown if text.strip() or not bar]
    return kept


def tidy(path: Path) -> None:
    notebook = json.loads(path.read_text())
    for cell in notebook["cells"]:
        if "outputs" in cell:
            cell["outputs"] = settled(cell["outputs"])
        for data in pictures(cell):
            png = smaller(base64.b64decode("".join(data["image/png"])))
            data["image/png"] = base64.b64encode(png).decode() + "\n"
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


def copies(paths) -> dict[Path, bytes]:
    """What the cells with `save` show, by the file it belongs to."""
    found = {}
    for path in paths:
        for cell in json.loads(path.read_text())["cells"]:
            if target := cell["metadata"].get("offrl", {}).get("save"):
                *_, data = pictures(cell)
                found[ROOT / target] = base64.b64decode("".join(data["image/png"]))
    return found


def main(*arguments: str) -> int:
    if arguments == ("--check",):
        wanted = copies(sorted((ROOT / "chapters").glob("*.ipynb")))
        stale = [p for p, png in wanted.items() if not p.exists() or p.read_bytes() != png]
        for path in stale:
            print(f"{path.relative_to(ROOT)} is not what its chapter shows; run `make execute`.")
        return 1 if stale else 0
    for path in map(Path, arguments):
        tidy(path)
        for target, png in copies([path]).items():
            target.write_bytes(png)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
