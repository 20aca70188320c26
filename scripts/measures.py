"""Measure chapters: reading time, code, figures, size and processor time (`make chapter` prints the table).

Counted is what a reader meets without opening a fold:
- Words of the text, in boxes and dropdowns too. A displayed equation counts as 10 words, a formula within a
  sentence, a citation or a reference as one. Addresses of links, labels and comments do not count.
- Lines of code that are not blank, in cells that are not folded and in fenced blocks of the text.
- Reading minutes: words / 150 + lines / 15, rounded up. The lesson ends at the heading "Going deeper".
Processor seconds are user and system time of the last `make execute`, of nbconvert, the kernel and all that
the kernel has started; they lie in the notebook's metadata as offrl.cpu_seconds.

With --execute: run the notebooks and store their outputs and seconds. A chapter whose metadata says
offrl.form: lesson also gets its times as one line, in a cell of its own that is tagged header-times.
With --header: write only that line, after a change of the text.
"""

import argparse
import ast
import json
import math
import re
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

HEADER = "header-times"
UNREAD = {"setup", "hide-input", "hide-cell", "remove-input", "remove-cell", HEADER}  # tags
DEEPER = re.compile(r"(?mi)^#+ Going deeper\b")
FENCED = re.compile(r"(?ms)^```[^\n]*\n(.*?)^```$")
IMAGE = re.compile(r"""<img\b(?:[^>"']|"[^"]*"|'[^']*')*>""")
PARTS = ("in the lesson", "going deeper", "in all")
EXECUTE = ["-m", "jupyter", "nbconvert", "--to", "notebook", "--execute", "--inplace"]
EXECUTE += ["--ExecutePreprocessor.record_timing=False"]
# Measure: the most it may be in a chapter of the form `lesson`, and what to do where it is more.
LIMITS = {
    "reading minutes in the lesson": (45, 'shorten it, or move a part below "Going deeper"'),
    "reading minutes in all": (80, "shorten the text, or fold code that only draws"),
    "words in all": (4800, "shorten the text"),
    "lines in the longest visible cell": (25, "split it, or fold it (tag hide-input)"),
    "lines in the longest method cell": (40, "split it"),
    "lines of the method": (200, "print a shorter method, or leave a variant out"),
    "figures without alt text": (0, "say in mystnb.image.alt of their cells what they show"),
    "kB of the notebook": (1500, "draw fewer or simpler figures"),
    "processor seconds": (120, "train fewer or shorter runs, then run `make execute CH={slug}`"),
}


def source(cell: dict) -> str:
    return "".join(cell["source"])


def tags(cell: dict) -> list[str]:
    return cell["metadata"].get("tags", [])


def code_lines(text: str) -> int:
    """Lines that are not blank, comments included: all of them are read."""
    return sum(bool(line.strip()) for line in text.splitlines())


def lines_of_code(text: str) -> int:
    """Lines without imports, docstrings, comments and blanks."""
    left_out = set()
    for node in ast.walk(ast.parse(textwrap.dedent(text))):
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if docstring or isinstance(node, ast.Import | ast.ImportFrom):
            left_out.update(range(node.lineno, node.end_lineno + 1))
    lines = [line.strip() for i, line in enumerate(text.splitlines(), 1) if i not in left_out]
    return sum(bool(line) and not line.startswith("#") for line in lines)


def words(text: str) -> int:
    """Words of a Markdown text without its fenced code; the module's docstring says how they count."""
    text = FENCED.sub("", text)
    text = re.sub(r"(?s)<!--.*?-->", "", text)
    text = re.sub(r"(?s)\$\$.*?\$\$(?: *\([\w:-]+\))?", " equation " * 10, text)
    text = re.sub(r"\{[\w:-]+\}`[^`]*`", "reference", text)
    text = re.sub(r"`[^`]*`", lambda code: code[0].replace("$", ""), text)
    text = re.sub(r"\$[^$]+\$", "formula", text)
    text = re.sub(r"!\[[^]]*\]\([^)]*\)", "", text)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    text = re.sub(r"(?m)^:{3,}(\{[\w-]+\})?|^:[\w-]+:.*$|^\([\w:-]+\)=$", "", text)
    return sum(bool(re.search(r"\w", word)) for word in re.split(r"[\s|]+", text))


def figures_without_alt(cell: dict) -> int:
    """Pictures of a cell, in its text or its outputs, that say nothing to who cannot see them."""
    text = source(cell) if cell["cell_type"] == "markdown" else ""
    alt = cell["metadata"].get("mystnb", {}).get("image", {}).get("alt", "").strip()
    missing = len(re.findall(r"!\[\s*\]\(", text))
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        html = "".join(data.get("text/html", ""))
        text += html
        if not IMAGE.search(html) and any(kind.startswith("image/") for kind in data):
            missing += not alt
    images = IMAGE.findall(text)
    return missing + sum(not re.search(r"""\balt=("[^"]+"|'[^']+')""", image) for image in images)


def measure(text: str) -> dict[str, int | None]:
    """The measures of a notebook, given as the text of its file, by the names that the table shows.

    Processor seconds are None before the first `make execute`. Raises ValueError where the text is not JSON,
    KeyError where it is no notebook, SyntaxError where a method cell is not Python.
    """
    notebook = json.loads(text)
    read = [cell for cell in notebook["cells"] if not UNREAD & set(tags(cell))]
    code = [cell for cell in read if cell["cell_type"] == "code"]
    fence = {"code": "```\n{}\n```", "markdown": "{}", "raw": ""}
    page = "\n\n".join(fence[cell["cell_type"]].format(source(cell)) for cell in read)
    ends = found.start() if (found := DEEPER.search(page)) else len(page)
    measures = {}
    for where, part in zip(PARTS, (page[:ends], page[ends:], page), strict=True):
        lines = sum(map(code_lines, FENCED.findall(part)))
        measures[f"words {where}"] = words(part)
        measures[f"visible lines of code {where}"] = lines
        measures[f"reading minutes {where}"] = math.ceil(words(part) / 150 + lines / 15)
    lengths = [("method" in tags(cell), code_lines(source(cell))) for cell in code]
    method = [source(cell) for cell in notebook["cells"] if "method" in tags(cell)]
    return measures | {
        "lines in the longest visible cell": max((n for m, n in lengths if not m), default=0),
        "lines in the longest method cell": max((n for m, n in lengths if m), default=0),
        "lines of the method": sum(map(lines_of_code, method)),
        "figures without alt text": sum(map(figures_without_alt, notebook["cells"])),
        "kB of the notebook": math.ceil(len(text.encode()) / 1000),
        "processor seconds": notebook["metadata"].get("offrl", {}).get("cpu_seconds"),
    }


def table(paths: list[Path]) -> str:
    """A line for each measure, a column for each notebook, and what a lesson's may be at most."""
    columns = {path.stem: measure(path.read_text()) for path in paths}
    names = list(columns[paths[0].stem])
    columns["at most"] = {name: limit for name, (limit, _) in LIMITS.items()}
    rows = [["", *columns]]
    for name in names:
        values = (column.get(name) for column in columns.values())
        rows.append([name, *("-" if value is None else str(value) for value in values)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = (map(str.rjust, row[1:], widths[1:]) for row in rows)
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *rest]) for row, rest in zip(rows, padded, strict=True)
    )


def mistakes(slug: str, text: str) -> list[str]:
    """One sentence for each budget that a chapter of the form `lesson` does not keep: what to do."""
    measured = measure(text)
    said = [
        f"{slug}: {measured[name]} {name}, at most {limit}; {advice.format(slug=slug)}."
        for name, (limit, advice) in LIMITS.items()
        if (measured[name] or 0) > limit
    ]
    if not measured["words going deeper"]:
        said.append(f'{slug}: no heading "Going deeper"; put one where the lesson ends.')
    headers = [source(cell) for cell in json.loads(text)["cells"] if HEADER in tags(cell)]
    if measured["processor seconds"] is None:
        said.append(f"{slug}: its time was never measured; run `make execute CH={slug}`.")
    elif headers != [header(measured)]:
        command = f"python scripts/measures.py --header chapters/{slug}.ipynb"
        said.append(f"{slug}: its header tells other times than were measured; run `{command}`.")
    return said


def header(measures: dict[str, int | None]) -> str:
    """The line of times: minutes rounded up to fives and seconds to tens, so that it changes rarely."""
    lesson, deeper = (5 * math.ceil(measures[f"reading minutes {p}"] / 5) for p in PARTS[:2])
    seconds = 10 * math.ceil(measures["processor seconds"] / 10)
    return (
        f"Lesson: {lesson} minutes. Going deeper: {deeper} more. "
        f"Running all cells: {seconds} seconds on one core."
    )


def write_header(path: Path, seconds: int | None = None) -> None:
    """Store the seconds, if given, and in a chapter of the form `lesson` the line of times.

    Raises ValueError where a lesson's seconds were never measured.
    """
    notebook = json.loads(path.read_text())
    about = notebook["metadata"].setdefault("offrl", {})
    if seconds is not None:
        about["cpu_seconds"] = seconds
    if about.get("form") == "lesson":
        if "cpu_seconds" not in about:
            raise ValueError(f"The time of {path} was never measured; run `make execute` first.")
        header_cell(notebook)["source"] = [header(measure(json.dumps(notebook)))]
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


def header_cell(notebook: dict) -> dict:
    """The cell tagged header-times; where there is none, a new one below the first cell."""
    for cell in notebook["cells"]:
        if HEADER in tags(cell):
            return cell
    cell = {"cell_type": "markdown", "id": HEADER, "metadata": {"tags": [HEADER]}, "source": []}
    notebook["cells"].insert(1, cell)
    return cell


def children_seconds() -> float:
    """Processor time of all processes that this one has started and that have ended, theirs included."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def execute(path: Path) -> None:
    """Run a notebook in place and store its seconds. Where a cell fails nothing is stored: SystemExit."""
    before = children_seconds()
    done = subprocess.run([sys.executable, *EXECUTE, str(path)])
    if done.returncode:
        raise SystemExit(done.returncode)
    write_header(path, math.ceil(children_seconds() - before))


def readable(name: str) -> Path:
    try:
        measure(Path(name).read_text())
    except (OSError, ValueError, KeyError, TypeError, SyntaxError) as error:
        said = f"{name} cannot be read as a notebook ({error})."
        raise argparse.ArgumentTypeError(said) from None
    return Path(name)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description="Measure chapters.", allow_abbrev=False)
    parser.add_argument("notebooks", nargs="+", type=readable)
    task = parser.add_mutually_exclusive_group()
    task.add_argument("--execute", action="store_true", help="run them, store outputs and times")
    task.add_argument("--header", action="store_true", help="write the line of times")
    given = parser.parse_args(arguments)
    if given.execute or given.header:
        for path in given.notebooks:
            execute(path) if given.execute else write_header(path)
    else:
        print(table(given.notebooks))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ValueError as error:
        sys.exit(str(error))
