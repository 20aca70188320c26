"""Reading chapters in tests: which there are, what their cells say, which exercises they hold."""

import ast
import json
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
from measures import lines_of_code as lines_of_code
from measures import source, tags
from methods import used_imports as used_imports

ROOT = Path(__file__).parents[1]
OPEN = "An open question"  # title of the exercise without a check


@dataclass
class Exercise:
    title: str
    solution: dict | None = None
    checks: list[dict] = field(default_factory=list)


@dataclass
class Chapter:
    path: Path

    def __post_init__(self):
        self.text = self.path.read_text()
        self.notebook = json.loads(self.text)
        self.cells = self.notebook["cells"]

    @property
    def slug(self) -> str:
        return self.path.stem

    @property
    def about(self) -> dict:
        return self.notebook["metadata"].get("offrl", {})

    @property
    def code(self) -> list[dict]:
        return [c for c in self.cells if c["cell_type"] == "code" and source(c).strip()]

    @property
    def prose(self) -> str:
        return "\n\n".join(source(c) for c in self.cells if c["cell_type"] == "markdown")

    def tagged(self, tag: str) -> list[dict]:
        return [c for c in self.code if tag in tags(c)]

    def exercises(self) -> list[Exercise]:
        """Those with a check: an open question has none."""
        found = []
        for cell in self.cells:
            if cell["cell_type"] == "markdown":
                found += [
                    Exercise(t) for t in re.findall(r"(?m)^:::+\{exercise\} *(.*)$", source(cell))
                ]
            elif "solution" in tags(cell) and found:
                found[-1].solution = cell
            elif "check" in tags(cell) and found:
                found[-1].checks.append(cell)
        return [exercise for exercise in found if exercise.title != OPEN]

    def definitions(self) -> str:
        """Imports, functions and classes of all cells but the exercises: what a check may lean on."""
        kept = []
        for cell in self.code:
            if not {"exercise", "setup", "check"} & set(tags(cell)):
                body = ast.parse(source(cell)).body
                wanted = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)
                kept += [ast.unparse(node) for node in body if isinstance(node, wanted)]
        return "\n\n".join(kept)


def chapters(kind: str | None = None) -> list[Chapter]:
    """Notebooks of _toc.yml, in order; only those of a kind (method, story, page) if given."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    files = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    found = [Chapter(ROOT / f"{file}.ipynb") for file in files if (ROOT / f"{file}.ipynb").exists()]
    return [c for c in found if kind in (None, c.about.get("kind"))]
