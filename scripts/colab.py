"""Write each chapter as one reads and runs it in Colab or plain Jupyter, colab/chapters/<slug>.ipynb (`make colab`).

It is the solved chapter without outputs, in plain Markdown (scripts/copies.py).
With --check: change nothing, exit 1 and name the notebooks that do not match their chapter.
"""

import sys
from pathlib import Path

import nbformat
from copies import ROOT, Book, copied, read_book, read_chapters, store

TARGET = ROOT / "colab" / "chapters"
NOTE = "This copy is for running and stores no outputs. [The chapter with its outputs]({})"


def reader(notebook, book: Book, page: str):
    """The reader's version of a notebook that nbformat has read; what the site folds is folded in Jupyter."""
    copied(notebook, book, NOTE.format(book.original(page)))
    for cell in notebook.cells:
        if "hide-input" in cell.metadata.get("tags", []):
            cell.metadata["jupyter"] = {"source_hidden": True}
    return notebook


def copies() -> dict[Path, str]:
    book = read_book()
    return {
        TARGET / Path(book.pages[page]).name: nbformat.writes(reader(notebook, book, page)) + "\n"
        for page, notebook in read_chapters(book)
    }


if __name__ == "__main__":
    sys.exit(store(copies(), TARGET, "--check" in sys.argv[1:], "make colab"))
