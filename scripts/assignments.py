"""Write each chapter's student notebook, assignments/chapters/<slug>.ipynb (`make assignments`).

Solutions become stubs, outputs go, and the text becomes plain Markdown that Colab, GitHub and JupyterLab
show as it is meant: boxes, references, citations and equation numbers are written out.
With --check: change nothing, exit 1 and name the notebooks that do not match their chapter.
"""

import re
import sys
from pathlib import Path

import nbformat
import yaml
from pybtex.database import parse_file

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "assignments" / "chapters"
STUB = "raise NotImplementedError  # your code here"
SOLUTION = re.compile(r"(?ms)^( *)# BEGIN SOLUTION\n.*?# END SOLUTION")
BOX = re.compile(r"(?ms)^(:{3,})\{(\w+)\} *([^\n]*)\n((?::[\w-]+:[^\n]*\n)*)(.*?)^\1 *$")
EQUATION = re.compile(r"(?ms)^\$\$\n(.*?)\n\$\$ \(([\w-]+)\)")
NOTE = (
    "> **This is the assignment.** Wherever a function says `raise NotImplementedError`, put your "
    "answer and run the check below it: it prints a tick, or a cross and a hint. The notebook runs to "
    "its end however many are open. The solved chapter, with all outputs, is on the website."
)


def student(notebook, title_of: dict[str, str], citations: dict[str, str]):
    """The student's version of a notebook that nbformat has read."""
    numbers = equation_numbers(notebook)
    for cell in notebook.cells:
        tags = [t for t in cell.metadata.get("tags", []) if t in ("setup", "exercise", "check")]
        cell.metadata = {"tags": tags} if tags else {}
        if cell.cell_type == "markdown":
            cell.source = plain(cell.source, numbers, title_of, citations)
        else:
            cell.outputs, cell.execution_count = [], None
            cell.source = SOLUTION.sub(rf"\1{STUB}", cell.source)
    head, _, rest = notebook.cells[0].source.partition("\n")
    notebook.cells[0].source = f"{head}\n\n{NOTE}\n{rest}"
    notebook.metadata.pop("offrl", None)
    return notebook


def equation_numbers(notebook) -> dict[str, int]:
    text = "\n\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    return {label: n for n, (_, label) in enumerate(EQUATION.findall(text), start=1)}


def plain(text: str, numbers: dict[str, int], title_of: dict[str, str], citations) -> str:
    """MyST -> Markdown. Raises ValueError, naming the place, for anything it does not know."""
    text = re.sub(r"(?m)^\([\w:-]+\)=\n", "", text)
    text = BOX.sub(box, text)
    text = EQUATION.sub(lambda m: f"$$\n{m[1]} \\tag{{{numbers[m[2]]}}}\n$$", text)
    text = re.sub(r"\{eq\}`([^`]+)`", lambda m: f"({numbers[m[1]]})", text)
    text = re.sub(r"\{cite:p\}`([^`]+)`", lambda m: f"({cited(m[1], citations)})", text)
    text = re.sub(
        r"\{cite:t\}`([^`]+)`",
        lambda m: re.sub(r", (\d{4})", r" (\1)", cited(m[1], citations)),
        text,
    )
    text = re.sub(r"\{(?:ref|doc|numref)\}`([^`]+)`", lambda m: title_of.get(m[1], m[1]), text)
    if left := re.search(r"\{[a-z:]+\}`[^`]*`|^[:`]{3,}\{.*", text, re.MULTILINE):
        raise ValueError(f"scripts/assignments.py does not know how to write out {left[0]!r}.")
    return text


def box(match: re.Match) -> str:
    head = match[2].capitalize() + (f": {match[3]}" if match[3] else "")
    lines = [f"**{head}**", "", *match[5].strip("\n").split("\n")]
    return "\n".join(f"> {line}".rstrip() for line in lines)


def cited(keys: str, citations: dict[str, str]) -> str:
    return "; ".join(citations[key.strip()] for key in keys.split(","))


def bibliography() -> dict[str, str]:
    """Key -> "Ross and Bagnell, 2010"."""
    entries = parse_file(ROOT / "references.bib").entries
    found = {}
    for key, entry in entries.items():
        names = [" ".join(person.last_names) for person in entry.persons["author"]]
        who = f"{names[0]} et al." if len(names) > 2 else " and ".join(names)
        found[key] = f"{who}, {entry.fields['year']}"
    return found


def assignments() -> dict[Path, str]:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    pages = [ROOT / f"{c['file']}.ipynb" for part in toc["parts"] for c in part["chapters"]]
    chapters = [nbformat.read(page, 4) for page in pages if page.exists()]
    exercises = re.compile(r"\{exercise\} *([^\n]*)\n:label: *(\S+)")
    title_of = {
        label: title
        for chapter in chapters
        for cell in chapter.cells
        for title, label in exercises.findall(cell.source)
    }
    citations, found = bibliography(), {}
    for page, chapter in zip([p for p in pages if p.exists()], chapters, strict=True):
        text = nbformat.writes(student(chapter, title_of, citations)) + "\n"
        if "SOLUTION" in text:
            raise ValueError(f"{page.name}: a solution's marks are not closed.")
        found[TARGET / page.name] = text
    return found


def main(check: bool) -> int:
    wanted = assignments()
    present = set(TARGET.glob("*.ipynb"))
    stale = [p for p, text in wanted.items() if p not in present or p.read_text() != text]
    orphans = sorted(present - wanted.keys())
    for path in [*stale, *orphans]:
        name = path.relative_to(ROOT)
        if check:
            print(f"{name} does not match its chapter; run `make assignments`.")
        elif path in orphans:
            path.unlink()
            print(f"removed {name}: no chapter writes it")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[path])
            print(f"wrote {name}")
    return 1 if check and (stale or orphans) else 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
