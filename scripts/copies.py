"""What the two generated copies of a chapter share: assignments/chapters (scripts/assignments.py) and
colab/chapters (scripts/colab.py).

`plain` turns the chapters' MyST into Markdown that Colab, GitHub and JupyterLab show as it is meant: boxes,
folds, references, citations and equation numbers are written out, and links lead somewhere. `setup_cell` is
the first code cell of every notebook. `store` writes the copies, or says which are out of date.
"""

import posixpath
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import nbformat
import yaml
from pybtex.database import Entry, parse_file
from pybtex.richtext import Text

ROOT = Path(__file__).resolve().parents[1]
NOBODY = "OWNER"  # who publishes the book according to repository.yml, as long as it has no address

# Leftmost first, so that nothing inside code or a formula is taken for a role or a link.
TOKEN = re.compile(
    r"(?P<fence>^ *(?P<ticks>`{3,})(?![`{]).*?^ *(?P=ticks) *$)"
    r"|\{(?P<role>[\w:-]+)\}`(?P<content>[^`]+)`"
    r"|(?P<code>(?<!`)(?P<tick>`{1,2})(?!`)(?:(?!\n\n).)+?(?<!`)(?P=tick)(?!`))"
    r"|\$\$(?P<display>.+?)\$\$(?: *\((?P<label>[\w:-]+)\))?"
    r"|(?P<inline>(?<![\\$])\$(?![\s$])(?:\\.|[^$\\])+?\$)"
    r"|(?P<link>(?<!\\)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\))",
    re.MULTILINE | re.DOTALL,
)
BOX = re.compile(
    r"(?ms)^(?P<fence>:{3,})\{(?P<name>[\w:-]+)\} *(?P<title>[^\n]*)\n"
    r"(?P<options>(?::[\w-]+:[^\n]*\n)*)(?P<body>.*?)^(?P=fence) *$"
)
HEADING = re.compile(r"(?m)^# +(.*)$")
EXERCISE = re.compile(r"(?m)^:{3,}\{exercise\} *([^\n]*)\n:label: *(\S+)")
LABELLED = re.compile(r"(?m)^\(([\w:-]+)\)= *\n+#+ +(.*)$")
LABEL = re.compile(r"(?m)^\([\w:-]+\)= *\n")
LEFT = re.compile(r"\{[a-z:]+\}`[^`]*`|^ *[:`]{3,}\{.*|^ *:{3,} *$|\$\$ *\([\w:-]+\)", re.MULTILINE)
NOTES = {"note", "tip", "hint", "warning", "caution", "important", "seealso"}


@dataclass(frozen=True)
class Book:
    """What the text of a chapter refers to.

    url, tag: where the book is published, and the release that Colab opens (repository.yml).
    pages: where each page of _toc.yml lies ("chapters/bc": "chapters/bc.ipynb").
    names: the title of each page, and the one that stands under each label.
    numbers: the number of each labelled equation, as the site prints it ("eq-iql-value": "8.2").
    entries: those of references.bib.
    """

    url: str
    tag: str
    pages: dict[str, str]
    names: dict[str, str]
    numbers: dict[str, str]
    entries: dict[str, Entry]

    @property
    def site(self) -> str:
        """The address of the website; empty while the book has none."""
        owner, name = self.url.split("/")[-2:]
        return "" if owner == NOBODY else f"https://{owner}.github.io/{name}"

    def address(self, page: str, anchor: str = "") -> str:
        """Where a copy finds a page: on the site, or in this tree while there is no site."""
        if self.site:
            return f"{self.site}/{page}.html{anchor}"
        if (path := self.pages[page]).endswith(".ipynb"):
            return posixpath.basename(path)  # each folder of copies holds all notebooks
        return f"../../{path}"

    def original(self, page: str) -> str:
        """Where a copy finds the chapter itself, which has outputs."""
        return self.address(page) if self.site else f"../../{self.pages[page]}"


def read_book() -> Book:
    repository, pages = yaml.safe_load((ROOT / "repository.yml").read_text()), listed()
    texts = {page: prose(path) for page, (path, _) in pages.items() if path.exists()}
    return Book(
        url=repository["url"].rstrip("/"),
        tag=repository["tag"],
        pages={page: str(path.relative_to(ROOT)) for page, (path, _) in pages.items()},
        names=titles(texts),
        numbers=equation_numbers(texts, {page: number for page, (_, number) in pages.items()}),
        entries=dict(parse_file(ROOT / "references.bib").entries),
    )


def titles(texts: dict[str, str]) -> dict[str, str]:
    """Of each page, and of each label before a heading or in an exercise."""
    found = {page: title for page, text in texts.items() for title in HEADING.findall(text)[:1]}
    for text in texts.values():
        found |= {label: title for title, label in EXERCISE.findall(text)}
        found |= dict(LABELLED.findall(text))
    return found


def listed() -> dict[str, tuple[Path, int | None]]:
    """The pages of _toc.yml in order: file, and number (None in a part without numbers)."""
    toc, number, found = yaml.safe_load((ROOT / "_toc.yml").read_text()), 0, {}
    for part in [{"chapters": [{"file": toc["root"]}]}, *toc["parts"]]:
        numbered = bool(part.get("numbered"))
        for page in (chapter["file"] for chapter in part["chapters"]):
            number += numbered
            text = ROOT / f"{page}.md"
            path = text if text.exists() else text.with_suffix(".ipynb")
            found[page] = path, number if numbered else None
    return found


def prose(path: Path) -> str:
    if path.suffix == ".md":
        return path.read_text()
    cells = nbformat.read(path, 4).cells
    return "\n\n".join(c.source for c in cells if c.cell_type == "markdown")


def equation_numbers(texts: dict[str, str], chapter_of: dict[str, int | None]) -> dict[str, str]:
    """Labelled equations count within their chapter; those of pages without a number count together."""
    counts, numbers = Counter(), {}
    for page, text in texts.items():
        chapter = chapter_of[page]
        for label in (match["label"] for match in TOKEN.finditer(text) if match["label"]):
            counts[chapter] += 1
            numbers[label] = f"{chapter}.{counts[chapter]}" if chapter else str(counts[chapter])
    return numbers


# Sources


def cited_in(text: str, book: Book) -> dict[str, tuple[str, str]]:
    """How a text names each source that it cites: authors and year, and a letter where two share both."""
    roles = [m for m in TOKEN.finditer(text) if (m["role"] or "").startswith("cite:")]
    keys = {key.strip() for match in roles for key in match["content"].split(",")}
    if unknown := keys - book.entries.keys():
        raise ValueError(f"references.bib has no {', '.join(sorted(unknown))}.")
    labels = {k: (authors(book.entries[k]), book.entries[k].fields["year"]) for k in sorted(keys)}
    total, seen = Counter(labels.values()), Counter()
    for key, (who, year) in labels.items():
        if total[who, year] > 1:
            labels[key] = who, year + "abcdefgh"[seen[who, year]]
            seen[who, year] += 1
    return labels


def authors(entry: Entry) -> str:
    names = [last_name(person) for person in entry.persons["author"]]
    return f"{names[0]} et al." if len(names) > 2 else " and ".join(names)


def last_name(person) -> str:
    return " ".join(str(part) for part in person.rich_prelast_names + person.rich_last_names)


def reference(entry: Entry, year: str) -> str:
    """An entry's line in a list: authors, year, title, where it was published, and its preprint."""
    people = [
        " ".join([last_name(p) + ",", *(f"{str(n)[0]}." for n in p.rich_first_names)]).rstrip(",")
        for p in entry.persons["author"]
    ]
    if len(people) > 6:
        people = [*people[:5], "et al."]
    fields = {name: str(Text.from_latex(value)) for name, value in entry.fields.items()}
    title = fields["title"]
    where = next((fields[k] for k in ("journal", "booktitle", "publisher") if k in fields), "")
    parts = [
        f"- {', '.join(people)} ({year}).",
        f"*{title}*" if title[-1] in "?!" else f"*{title}*.",
    ]
    parts += [f"{where}."] if where else []
    if "eprint" in fields:
        parts.append(f"[arXiv:{fields['eprint']}](https://arxiv.org/abs/{fields['eprint']}).")
    return " ".join(parts)


def works_cited(cited: dict[str, tuple[str, str]], book: Book) -> str:
    """The sources as a list; "" where there are none."""
    lines = sorted(reference(book.entries[key], year) for key, (_, year) in cited.items())
    return "\n".join(["## Works cited", "", *lines]) if lines else ""


# Markdown


def plain(text: str, book: Book, cited: dict[str, tuple[str, str]]) -> str:
    """MyST -> Markdown. Raises ValueError, naming the place, for anything that it does not know."""
    try:
        text = TOKEN.sub(lambda match: written_out(match, book, cited), LABEL.sub("", text))
    except KeyError as missing:
        raise ValueError(f"The text refers to {missing}, and nothing has that name.") from None
    text = boxed(text)
    without_code = TOKEN.sub(lambda m: "" if m["fence"] or m["code"] else m[0], text)
    if left := LEFT.search(without_code):
        raise ValueError(f"scripts/copies.py does not know how to write out {left[0]!r}.")
    return text


def written_out(match: re.Match, book: Book, cited: dict[str, tuple[str, str]]) -> str:
    if match["role"]:
        return role(match, book, cited)
    if match["link"]:
        return f"[{match['text']}]({target(match['target'], book)})"
    if match["label"]:
        formula = match["display"].strip("\n")
        return f"$$\n{formula} \\tag{{{book.numbers[match['label']]}}}\n$$"
    return match[0]


def role(match: re.Match, book: Book, cited: dict[str, tuple[str, str]]) -> str:
    name, content = match["role"], match["content"]
    shown, _, label = re.fullmatch(r"(?s)(?:(.+?)\s*(<))?(.+?)>?", content).groups()
    if name == "eq":
        return f"({book.numbers[label]})"
    if name in ("cite:p", "cite:t"):
        works = [cited[key.strip()] for key in content.split(",")]
        if name == "cite:p":
            return f"({'; '.join(', '.join(work) for work in works)})"
        *most, final = [f"{who} ({year})" for who, year in works]
        return f"{', '.join(most)} and {final}" if most else final
    if name in ("ref", "numref"):
        return shown or book.names[label]
    if name == "doc":
        page = page_of(label)
        return f"[{shown or book.names[page]}]({book.address(page)})"
    if name in ("term", "abbr"):
        return shown or label if name == "term" else content
    return match[0]  # `plain` says that it is not known


def page_of(link: str) -> str:
    """The page that a link from a chapter leads to: "bc.ipynb" -> "chapters/bc"."""
    return posixpath.normpath(posixpath.join("chapters", re.sub(r"\.(ipynb|md|html)$", "", link)))


def target(link: str, book: Book) -> str:
    """A link of a chapter, from where a copy lies. Raises KeyError when nothing lies where it leads."""
    if re.match(r"[a-z][a-z+.-]*:", link):
        return link
    path, hash_, anchor = link.partition("#")
    if (page := page_of(path)) in book.pages:
        return book.address(page, hash_ + anchor)
    file = posixpath.normpath(f"chapters/{path}")
    if not (ROOT / file).is_file():
        raise KeyError(link)
    return f"{book.url}/raw/{book.tag}/{file}" if book.site else f"../../{file}"


def boxed(text: str) -> str:
    """Boxes as quotations, folds as folds."""
    return BOX.sub(box, text)


def box(match: re.Match) -> str:
    name, title, body = match["name"], match["title"], boxed(match["body"]).strip("\n")
    fold = name == "dropdown" or re.search(r"(?m)^:class:.*\bdropdown\b", match["options"])
    if name == "exercise":
        title = f"Exercise: {title}" if title else "Exercise"
    elif name in NOTES:  # what follows the name begins their text
        title, body = name.capitalize(), f"{title}\n{body}".strip("\n")
    elif name not in ("admonition", "dropdown"):
        return match[0]  # `plain` says that it is not known
    if fold:
        return f"<details>\n<summary>{title}</summary>\n\n{body}\n\n</details>"
    # Jupyter would read the quotation's marks as part of a formula of several lines.
    body = re.sub(r"(?s)\$\$\n(.*?)\n *\$\$", lambda m: f"$${' '.join(m[1].split())}$$", body)
    return "\n".join(f"> {line}".rstrip() for line in [f"**{title}**", "", *body.split("\n")])


# Notebooks


def read_chapters(book: Book):
    """The chapters that are notebooks: page, and what nbformat reads."""
    for page, path in book.pages.items():
        if path.endswith(".ipynb") and (ROOT / path).exists():
            yield page, nbformat.read(ROOT / path, 4)


def setup_cell(url: str, tag: str) -> str:
    """The first code cell of every notebook: the package, installed where it is missing."""
    return f'''\
# @title Setup (run me first)
import importlib.util
import subprocess
import sys

source = "git+{url}@{tag}"
if importlib.util.find_spec("offrl_nb") is None:  # Colab, or this notebook alone
    pip = subprocess.run([sys.executable, "-m", "pip", "install", "-q", source])
    if pip.returncode:
        sys.exit(
            "offrl_nb could not be installed from the internet; with a copy of the book on this "
            "machine, run `pip install -e .` in its folder, then restart the kernel and run this "
            "cell again."
        )

import offrl_nb

offrl_nb.expect("{tag.removeprefix("v")}")'''


def copied(notebook, book: Book, note: str):
    """The notebook in plain Markdown, without outputs, with a note under its title and its sources at the end."""
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    cited = cited_in("\n\n".join(texts), book)
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        cell.metadata = {"tags": tags} if tags else {}
        if cell.cell_type == "markdown":
            cell.source = plain(cell.source, book, cited)
        else:
            cell.outputs, cell.execution_count = [], None
            if "setup" in tags:
                cell.source = setup_cell(book.url, book.tag)
    head, _, rest = notebook.cells[0].source.partition("\n")
    notebook.cells[0].source = f"{head}\n\n> {note}\n{rest}"
    if works := works_cited(cited, book):
        notebook.cells.append(nbformat.v4.new_markdown_cell(works, id="works-cited"))
    notebook.metadata.pop("offrl", None)
    return notebook


def store(wanted: dict[Path, str], folder: Path, check: bool, command: str) -> int:
    """Write the copies that differ and remove those that no chapter has; the exit status.

    check: change nothing, name what differs, and return 1 if anything does.
    """
    present = set(folder.glob("*.ipynb"))
    stale = [p for p, text in wanted.items() if p not in present or p.read_text() != text]
    orphans = sorted(present - wanted.keys())
    for path in [*stale, *orphans]:
        name = path.relative_to(ROOT)
        if check:
            print(f"{name} does not match its chapter; run `{command}`.")
        elif path in orphans:
            path.unlink()
            print(f"removed {name}: no chapter writes it")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[path])
            print(f"wrote {name}")
    return 1 if check and (stale or orphans) else 0
