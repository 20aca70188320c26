"""Write each chapter's student notebook, assignments/chapters/<slug>.ipynb (`make assignments`).

Solutions become stubs, outputs go, and the text becomes plain Markdown (scripts/copies.py).
With --check: change nothing, exit 1 and name the notebooks that do not match their chapter.
"""

import re
import sys
from pathlib import Path

import nbformat
from copies import ROOT, Book, copied, read_book, read_chapters, store

TARGET = ROOT / "assignments" / "chapters"
TAGS = ("setup", "method", "exercise", "check")
STUB = "raise NotImplementedError  # your code here"
SOLUTION = re.compile(r"(?ms)^( *)# BEGIN SOLUTION\n.*?# END SOLUTION")
NOTE = (
    "**This is the assignment.** Wherever a function says `raise NotImplementedError`, put your "
    "answer and run the check below it: it prints a tick, or a cross and a hint. The notebook runs to "
    "its end however many are open. [The solved chapter]({}) has all outputs."
)


def student(notebook, book: Book, page: str):
    """The student's version of a notebook that nbformat has read."""
    copied(notebook, book, NOTE.format(book.original(page)))
    for cell in notebook.cells:
        tags = [t for t in cell.metadata.get("tags", []) if t in TAGS]
        cell.metadata = {"tags": tags} if tags else {}
        if cell.cell_type == "code":
            cell.source = SOLUTION.sub(rf"\1{STUB}", cell.source)
    return notebook


def assignments() -> dict[Path, str]:
    book, found = read_book(), {}
    for page, notebook in read_chapters(book):
        text = nbformat.writes(student(notebook, book, page)) + "\n"
        if "SOLUTION" in text:
            raise ValueError(f"{book.pages[page]}: a solution's marks are not closed.")
        found[TARGET / Path(book.pages[page]).name] = text
    return found


if __name__ == "__main__":
    check = "--check" in sys.argv[1:]
    sys.exit(store(assignments(), TARGET, check, "make assignments"))
