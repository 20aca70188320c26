"""The public address and the release: the same everywhere, and changed everywhere at once."""

import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from notebooks import ROOT

spec = importlib.util.spec_from_file_location("set_repo", ROOT / "scripts" / "set_repo.py")
set_repo = importlib.util.module_from_spec(spec)
spec.loader.exec_module(set_repo)

OLD = set_repo.current(ROOT)
# In pieces, so that this file is not itself a place where an address stands.
NEW = ("https://github.com/" + "/".join(("some-body", "a.book")), "v12.30.4")


def names(url, tag):
    """owner, name, version"""
    return (*set_repo.URL.fullmatch(url).groups(), tag[1:])


def snapshot(tree):
    return {path: (tree / path).read_bytes() for path, _ in set_repo.text_files(tree)}


def code_cells(text):
    cells = json.loads(text)["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def disagreements(tree):
    """Every place that names another address, tag or version than repository.yml."""
    url, tag = set_repo.current(tree)
    owner, name, version = names(url, tag)
    texts = dict(set_repo.text_files(tree))
    pages = f"https://{owner}.github.io/{name}/"
    expected = {
        "offrl_nb/__init__.py": [f'\n__version__ = "{version}"\n'],
        "CITATION.cff": [
            f"\nversion: {version}\n",
            f"\nrepository-code: {url}\n",
            f"\nurl: {pages}\n",
        ],
        "pyproject.toml": [f'\nRepository = "{url}"\n', f'\nBook = "{pages}"\n'],
        "README.md": [f"<{pages}>", f"git clone {url}"],
    }
    found = [
        f"{path} lacks {line.strip()!r}"
        for path, lines in expected.items()
        for line in lines
        if line not in texts[path]
    ]
    ours = re.compile(rf"{re.escape(owner)}/{re.escape(name)}[^\s\"'<>()\\]*?[@/](v\d+(?:\.\d+)+)")
    foreign = re.compile(r"(?:git\+|git clone )(https://github\.com/[\w.-]+/[\w-]+(?:\.[\w-]+)*)")
    for path, text in texts.items():
        found += [f"{path} names the tag {other}" for other in ours.findall(text) if other != tag]
        if set_repo.PAGES.fullmatch(path):
            found += [f"{path} names {other}" for other in foreign.findall(text) if other != url]
        if re.fullmatch(r"(assignments/)?chapters/[^/]+\.ipynb", path):
            setup = code_cells(text)[0]
            versions = set(re.findall(r"(?<![\w.])\d+(?:\.\d+){2}(?!\w)", setup))
            if f'"git+{url}@{tag}"' not in setup:
                found.append(f"{path}: the setup cell does not install {url} at {tag}")
            if f'offrl_nb.__version__ != "{version}"' not in setup or versions != {version}:
                found.append(f"{path}: the setup cell does not expect version {version}")
    return found


@pytest.fixture
def tree(tmp_path):
    """A copy of the working tree's text files."""
    for path, text in set_repo.text_files(ROOT):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(text.encode())
    shutil.copy2(ROOT / "CHANGELOG.md", tmp_path)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    yield tmp_path
    shutil.rmtree(tmp_path)


def test_the_tree_agrees_with_repository_yml():
    assert not disagreements(ROOT)


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("chapters/bc.ipynb", f"@{OLD[1]}", "@v9.9.9"),
        ("chapters/bc.ipynb", f'__version__ != \\"{OLD[1][1:]}\\"', '__version__ != \\"9.9.9\\"'),
        ("chapters/bc.ipynb", f"for offrl_nb {OLD[1][1:]}", "for offrl_nb 9.9.9"),
        ("chapters/bc.ipynb", OLD[0], NEW[0]),
        ("CITATION.cff", f"version: {OLD[1][1:]}", "version: 9.9.9"),
        ("offrl_nb/__init__.py", f'"{OLD[1][1:]}"', '"9.9.9"'),
        ("chapters/using_this_book.md", OLD[0], NEW[0]),
        ("repository.yml", OLD[1], "v9.9.9"),
    ],
)
def test_a_place_that_disagrees_is_noticed(tree, path, old, new):
    text = (tree / path).read_text()
    assert old in text
    (tree / path).write_text(text.replace(old, new, 1))
    assert disagreements(tree)


def test_there_and_back(tree, capsys):
    before = snapshot(tree)
    assert set_repo.main(tree, *NEW) == 0
    printed = capsys.readouterr().out.split()
    after = snapshot(tree)
    assert printed == [path for path in before if before[path] != after[path]]
    assert {"repository.yml", "README.md", "chapters/bc.ipynb", "CITATION.cff"} <= set(printed)
    assert set_repo.current(tree) == NEW
    assert not disagreements(tree)

    owner, name, _ = names(*OLD)
    address = re.compile(rf"{owner}(\.github\.io)?/{re.escape(name)}\b|\bcd {re.escape(name)}\b")
    others_releases = (
        ".",
        "results/",
        "benchmarks/",
        "data/",
        "tests/",
        "_static/",
        "requirements",
    )
    for path, content in after.items():
        assert not address.search(content.decode()), path
        assert path.startswith(others_releases) or OLD[1] not in content.decode(), path

    assert set_repo.main(tree, *NEW) == 0
    assert "already" in capsys.readouterr().out
    assert snapshot(tree) == after

    assert set_repo.main(tree, *OLD) == 0
    assert snapshot(tree) == before


def test_only_sources_of_notebooks_change(tree):
    def without_sources(text):
        notebook = json.loads(text)
        for cell in notebook["cells"]:
            cell.pop("source")
        return notebook

    chapter = tree / "chapters" / "bc.ipynb"
    notebook = json.loads(chapter.read_text())
    said = [{"name": "stdout", "output_type": "stream", "text": [f"{OLD[0]} at {OLD[1]}\n"]}]
    notebook["cells"][-2]["outputs"] = said
    chapter.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
    before = {path: path.read_text() for path in tree.rglob("*.ipynb")}
    set_repo.set_repo(tree, *NEW)
    for path, text in before.items():
        assert without_sources(text) == without_sources(path.read_text())
        lines = [text.split("\n"), path.read_text().split("\n")]
        changed = [pair for pair in zip(*lines, strict=True) if pair[0] != pair[1]]
        assert 1 <= len(changed) <= 10


@pytest.mark.parametrize(
    ("path", "before", "after"),
    [
        ("notes.txt", "git@github.com:{o}/{n}.git", "git@github.com:{O}/{N}.git"),
        (
            "notes.txt",
            "git+https://github.com/{o}/{n}@{t}#x",
            "git+https://github.com/{O}/{N}@{T}#x",
        ),
        ("notes.txt", "/github/{o}/{n}/blob/{t}/chapters", "/github/{O}/{N}/blob/{T}/chapters"),
        ("notes.txt", "https://{o}.github.io/{n}/bc.html", "https://{O}.github.io/{N}/bc.html"),
        (
            "notes.txt",
            "clone github.com/{o}/{n}.git && cd {n}",
            "clone github.com/{O}/{N}.git && cd {N}",
        ),
        ("notes.txt", "It is {o}/{n}. So there.", "It is {O}/{N}. So there."),
        ("notes.txt", "{o}/{n}-extra my{o}/{n} {o}/{n}.rs", "{o}/{n}-extra my{o}/{n} {o}/{n}.rs"),
        ("notes.txt", "other-package@{t}", "other-package@{t}"),
        (
            "notes.md",
            "the release {t}, not {t}.5 or {t}-rc1",
            "the release {T}, not {t}.5 or {t}-rc1",
        ),
        ("CHANGELOG.md", "{o}/{n} {t}", "{o}/{n} {t}"),
    ],
)
def test_forms_of_the_address(tree, path, before, after):
    old, new = names(*OLD), names(*NEW)
    values = {"o": old[0], "n": old[1], "t": OLD[1]}
    values |= {"O": new[0], "N": new[1], "T": NEW[1]}
    (tree / path).write_text(before.format(**values))
    set_repo.set_repo(tree, *NEW)
    assert (tree / path).read_text() == after.format(**values)


@pytest.mark.parametrize(
    ("url", "tag"),
    [
        (NEW[0] + "/", NEW[1]),
        (NEW[0] + ".git", NEW[1]),
        (NEW[0] + "/tree/main", NEW[1]),
        (NEW[0].replace("https", "http"), NEW[1]),
        (NEW[0].replace("github", "gitlab"), NEW[1]),
        ("github.com/me", NEW[1]),
        ("https://github.com/-me/x y", NEW[1]),
        ("https://github.com/me/me.github.io", NEW[1]),
        (NEW[0], "0.2.0"),
        (NEW[0], "v0.2"),
        (NEW[0], "v0.2.0rc1"),
        (NEW[0], "v0.02.0"),
        ("", ""),
    ],
)
def test_bad_input_changes_nothing(tree, url, tag):
    before = snapshot(tree)
    message = set_repo.main(tree, url, tag)
    assert isinstance(message, str) and "\n" not in message
    assert ("TAG" in message) or ("URL" in message) or ("another name" in message)
    assert snapshot(tree) == before


def test_a_write_that_fails_undoes_the_others(tree, monkeypatch):
    before, write, calls = snapshot(tree), Path.write_bytes, []

    def full_disk(path, content):
        calls.append(path)
        if len(calls) == 3:
            raise OSError("no space left")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="no space"):
        set_repo.set_repo(tree, *NEW)
    assert len(calls) == 5  # the third failed, the first two were put back
    assert snapshot(tree) == before
