"""`make new`: what it writes keeps every contract at once, and where it refuses nothing is written."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from notebooks import ROOT, Chapter, chapters, source

sys.path.insert(0, str(ROOT / "scripts"))
import new

MARK = "Write here"
FOLDERS = ("offrl_nb", "scripts", "tests")
FILES = [
    "_toc.yml",
    "_config.yml",
    "index.md",
    "pyproject.toml",
    "references.bib",
    "repository.yml",
]
FILES += [f"chapters/{name}" for name in ("bc.ipynb", "ruff.toml")]
FILES += [f"offrl_nb/methods/{name}.py" for name in ("__init__", "bc")]
HEAVY = shutil.ignore_patterns("__pycache__", "vendor", "colab", "fixtures", "methods")


@pytest.fixture
def tree(tmp_path):
    """What a new chapter needs of this tree, with chapter bc and its method alone."""
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=HEAVY)
    (tmp_path / "offrl_nb" / "methods").mkdir()
    (tmp_path / "chapters").mkdir()
    for file in FILES:
        shutil.copy(ROOT / file, tmp_path / file)
    (tmp_path / "data").symlink_to(ROOT / "data")
    return tmp_path


def texts(folder):
    names = ("chapters", "tests", "index.md", "_toc.yml")
    files = [p for name in names for p in [folder / name, *(folder / name).rglob("*")]]
    return {path: path.read_bytes() for path in files if path.is_file()}


def run(tree, *command, **environment):
    """A command in the copy, with the copy's package; what it printed."""
    given = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"} | environment
    done = subprocess.run(
        [sys.executable, *command], cwd=tree, env=given, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_new_chapter_keeps_every_contract_at_once(tree):
    before = texts(tree)
    printed = run(tree, "scripts/new.py", "zz_begun", "Begun at first", "Models")
    steps = ["make methods", "make execute", "make assignments", "make claims"]
    assert [printed.find(step) for step in steps] == sorted(printed.find(s) for s in steps)
    assert "- **[Begun at first](chapters/zz_begun.ipynb)**" in (tree / "index.md").read_text()
    toc = (tree / "_toc.yml").read_text()
    assert re.search(r"chapters/combo\n.*title.*\n.*chapters/zz_begun\n", toc)
    changed = {p.relative_to(tree).as_posix() for p, x in texts(tree).items() if before.get(p) != x}
    written = {
        "chapters/zz_begun.ipynb",
        "tests/test_zz_begun.py",
        "tests/wrong_answers/zz_begun.py",
    }
    assert changed == written | {"_toc.yml", "index.md"}

    run(tree, "scripts/methods.py")
    run(tree, "scripts/assignments.py")
    run(tree, "-m", "ruff", "check", *written)
    run(tree, "-m", "ruff", "format", "--check", *written)
    tests = [f"tests/test_{name}.py" for name in ("contract", "chapters", "zz_begun")]
    chosen = "zz_begun and not executed_once"  # make execute comes later
    ran = run(tree, "-m", "pytest", "-v", "-p", "no:cacheprovider", *tests, "-k", chosen)
    for part in ("contract.py", "chapters.py", "zz_begun.py"):
        assert len(re.findall(rf"test_{part}::\S+ PASSED", ran)) >= 3, f"{part} asks nothing of it"


def test_its_cells_run_at_size_fast_and_its_solutions_are_right(tree):
    run(tree, "scripts/new.py", "zz_begun")
    run(tree, "scripts/methods.py")
    cells = [source(cell) for cell in Chapter(tree / "chapters" / "zz_begun.ipynb").code]
    (tree / "zz_begun.py").write_text("\n\n".join(cells))
    printed = run(tree, "zz_begun.py", OFFRL_SIZE="fast", OFFRL_STRICT="1", MPLBACKEND="agg")
    assert "4 of 4 checks pass." in printed


@pytest.mark.parametrize(
    ("slug", "title", "part", "said"),
    [
        ("", "", "", "Name the new chapter"),
        ("bc", "", "", "There is a chapters/bc.ipynb already"),
        ("loop", "", "", "There is a tests/test_loop.py already"),
        ("Sarsa", "", "", "cannot be a slug"),
        ("a-b", "", "", "cannot be a slug"),
        ("2x", "", "", "cannot be a slug"),
        ("../x", "", "", "cannot be a slug"),
        ("class", "", "", "cannot be a slug"),
        ("zz_begun", 'A "title"', "", "quotation mark"),
        ("zz_begun", "", "At the back", "no numbered part 'At the back'"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(tree, slug, title, part, said):
    before = texts(tree)
    problem = new.main(tree, slug, title, part)
    assert said in problem and problem.endswith(".") and "\n" not in problem
    assert texts(tree) == before


def test_nothing_is_left_half_written(tree, monkeypatch):
    (tree / "index.md").write_text("no map\n")
    before = texts(tree)
    assert "index.md has no list" in new.main(tree, "zz_begun")
    assert texts(tree) == before
    shutil.copy(ROOT / "index.md", tree / "index.md")
    before, write = texts(tree), type(tree).write_text

    def full(path, text, *rest):
        if path.name == "index.md":
            raise OSError("no space left on device")
        return write(path, text, *rest)

    monkeypatch.setattr(type(tree), "write_text", full)
    assert "no space left" in new.main(tree, "zz_begun")
    assert texts(tree) == before


@pytest.mark.parametrize("path", [ROOT / "index.md", *(c.path for c in chapters())], ids=str)
def test_nothing_of_the_template_is_left_in_the_book(path):
    assert MARK not in path.read_text(), f"{path.name} still says {MARK!r}; write what is asked."
