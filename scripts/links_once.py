"""Give the chapters' links to pages of the book their file's ending: [The problem](problem) -> (problem.ipynb).

    python /tmp/team/links.py /tmp/i20                 all of chapters/, and scripts/template
    python /tmp/team/links.py /tmp/i20 index.md ...    these files
    python /tmp/team/links.py /tmp/i20 --setup         the setup cell of every chapter, too

In a notebook only the links change (and, with --setup, the setup cell): outputs, ids and the layout of the file stay.
The form with an ending works on the site (Sphinx finds the page), in Jupyter and on GitHub. A second run changes nothing.
"""

import json
import posixpath
import re
import sys
from pathlib import Path

LINK = re.compile(r"(?<!\\)(\[[^\]]*\]\()([\w./-]+?)(\.html|\.md|\.ipynb)?(#[^)\s]*)?\)")


def relinked(text: str, folder: str, root: Path, as_if: str) -> str:
    def ending(match):
        head, path, _, anchor = match.groups()
        if re.match(r"[a-z]+:", path):
            return match[0]
        for suffix in (".ipynb", ".md"):
            if (root / posixpath.normpath(posixpath.join(as_if, path + suffix))).is_file():
                return f"{head}{path}{suffix}{anchor or ''})"
        return match[0]

    # neither code nor formulas
    parts = re.split(r"(?s)(```.*?```|(?<!\])`[^`\n]+`|\$\$.*?\$\$|(?<!\\)\$[^$\n]+\$)", text)
    return "".join(p if i % 2 else LINK.sub(ending, p) for i, p in enumerate(parts))


def main(root: Path, names: list[str]):
    setup = "--setup" in names
    names = [n for n in names if n != "--setup"]
    files = [root / n for n in names] or [
        *sorted((root / "chapters").glob("*.ipynb")), *sorted((root / "chapters").glob("*.md")),
        root / "scripts" / "template" / "chapter.ipynb",
    ]
    cell_text = None
    if setup:
        sys.path.insert(0, str(root / "scripts"))
        from copies import read_book, setup_cell

        book = read_book()
        cell_text = setup_cell(book.url, book.tag)
    for file in files:
        old = file.read_text()
        folder = file.parent.relative_to(root).as_posix()
        as_if = "chapters" if "template" in folder else folder
        if file.suffix == ".md":
            new = relinked(old, folder, root, as_if)
        else:
            nb = json.loads(old)
            changed = False
            for c in nb["cells"]:
                was = "".join(c["source"])
                now = relinked(was, folder, root, as_if) if c["cell_type"] == "markdown" else was
                if cell_text and "setup" in c["metadata"].get("tags", []):
                    now = cell_text
                if now != was:
                    c["source"], changed = now.splitlines(keepends=True), True
            new = json.dumps(nb, indent=1, ensure_ascii=False) + "\n" if changed else old
        if new != old:
            file.write_text(new)
            print("changed", file.relative_to(root))


main(Path(sys.argv[1]).resolve(), sys.argv[2:])
