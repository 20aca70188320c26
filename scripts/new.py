"""Begin a chapter from scripts/template (`make new CH=sarsa TITLE="SARSA" PART=Models`).

Writes the notebook, its wrong answers and its tests, and a line each in _toc.yml and index.md. What is wrong
with a slug, a title or a part is said in one sentence, and then nothing is written.
"""

import keyword
import re
import sys
from pathlib import Path

import nbformat
import yaml

ROOT = Path(__file__).resolve().parents[1]
# Where a file of scripts/template goes.
TARGETS = {
    "chapter.ipynb": "chapters/{}.ipynb",
    "wrong_answers.py": "tests/wrong_answers/{}.py",
    "test.py": "tests/test_{}.py",
}
# The list that a part has in a file: the new line goes below it.
LISTS = {
    "_toc.yml": r"- caption: {}\n(?: {{4,}}\S.*\n)+",
    "index.md": r"\*\*{}\*\*\n(?:(?!:::::\n).*\n)*?(?:- \*\*.*\n)+",
}
NEXT = """Begun: {files}.
Then, in this order:
  1. Write chapters/{slug}.ipynb (make lab). "Write here" marks what is to be replaced.
     make chapter CH={slug} tries a copy at the small size and stores nothing.
  2. make methods: its method cells become offrl_nb/methods/{slug}.py.
  3. make execute CH={slug}: it runs at full size, and its outputs are stored.
  4. make assignments: the student notebook.
  5. make claims CH={slug}: its claims, on three other blocks of seeds.
  6. make book, make test, and a line in CHANGELOG.md.
CONTRIBUTING.md says what a method module and a chapter keep to."""


def mistake(root: Path, slug: str, title: str, part: str, parts: list[str]) -> str | None:
    """What is wrong, in one sentence; None if nothing is."""
    if not slug:
        return 'Name the new chapter, for instance: make new CH=sarsa TITLE="SARSA".'
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", slug) or keyword.iskeyword(slug):
        return (
            f"{slug!r} cannot be a slug; take at most 40 lower-case letters, digits and underscores, a letter "
            "first, and no keyword of Python."
        )
    for path in (target.format(slug) for target in TARGETS.values()):
        if (root / path).exists():
            return f"There is a {path} already; choose another slug."
    if re.search(r"[\\\"\[\]\n]", title):
        return f"The title {title!r} holds a quotation mark, a bracket or a backslash; do without."
    if part not in parts:
        return f"There is no numbered part {part!r} in _toc.yml; there are: {', '.join(parts)}."
    return None


def written(root: Path, slug: str, title: str, part: str) -> dict[Path, str]:
    """The files to write, with their text. Raises ValueError where a part has no list."""
    texts = {}
    for name, target in TARGETS.items():
        text = (root / "scripts" / "template" / name).read_text()
        texts[root / target.format(slug)] = text.replace("SLUG", slug).replace("TITLE", title)
    path = root / TARGETS["chapter.ipynb"].format(slug)
    notebook = nbformat.reads(texts[path], 4)
    other = nbformat.read(min((root / "chapters").glob("*.ipynb")), 4)
    new, old = (next(c for c in n.cells if c.cell_type == "code") for n in (notebook, other))
    new.source = old.source  # the setup cell, letter by letter
    texts[path] = nbformat.writes(notebook) + "\n"
    entry = f"- **[{title}](chapters/{slug}.ipynb)** *Write here: the question that it answers.*\n"
    for file, line in {"_toc.yml": f"      - file: chapters/{slug}\n", "index.md": entry}.items():
        text = (root / file).read_text()
        found = re.search(LISTS[file].format(re.escape(part)), text)
        if not found:
            raise ValueError(f"{file} has no list for the part {part!r}; write one first.")
        texts[root / file] = text[: found.end()] + line + text[found.end() :]
    return texts


def main(root: Path, slug: str = "", title: str = "", part: str = "") -> str | int:
    """Write everything and return 0; or a sentence, and nothing was written."""
    toc = yaml.safe_load((root / "_toc.yml").read_text())
    parts = [p["caption"] for p in toc["parts"] if p.get("numbered")]
    title, part = title or slug.replace("_", " ").capitalize(), part or parts[-1]
    if problem := mistake(root, slug, title, part, parts):
        return problem
    before: dict[Path, bytes | None] = {}
    try:
        for path, text in written(root, slug, title, part).items():
            before[path] = path.read_bytes() if path.exists() else None
            path.write_text(text)
    except (OSError, ValueError) as error:
        for path, old in before.items():
            path.unlink(missing_ok=True) if old is None else path.write_bytes(old)
        return f"Nothing was written: {error}"
    print(NEXT.format(slug=slug, files=", ".join(str(path.relative_to(root)) for path in before)))
    return 0


if __name__ == "__main__":
    sys.exit(main(ROOT, *sys.argv[1:]))
