"""The public address and the release: the same everywhere, and changed everywhere at once."""

import json
import re
import shutil
import subprocess
import sys

import pytest
from notebooks import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import set_repo

TEXTS = set_repo.text_files(ROOT)
OLD = set_repo.current(TEXTS)
# In pieces, so that this file is not itself a place where an address stands.
NEW = ("https://github.com/" + "/".join(("some-body", "a.book")), "v12.30.4")


def names(url, tag):
    """owner, name, version"""
    return (*set_repo.URL.fullmatch(url).groups(), tag[1:])


def renewed(texts, old, new):
    return {path: set_repo.renew(path, text, old, new) for path, text in texts.items()}


def disagreements(texts):
    """Every place that names another address, tag or version than repository.yml."""
    url, tag = set_repo.current(texts)
    owner, name, version = names(url, tag)
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
        if re.fullmatch(r"((assignments|colab)/)?chapters/[^/]+\.ipynb", path):
            cells = json.loads(text)["cells"]
            setup = next("".join(c["source"]) for c in cells if c["cell_type"] == "code")
            if f'"git+{url}@{tag}"' not in setup:
                found.append(f"{path}: the setup cell does not install {url} at {tag}")
            if f'offrl_nb.expect("{version}")' not in setup:
                found.append(f"{path}: the setup cell does not expect version {version}")
    return found


def test_the_tree_agrees_with_repository_yml():
    assert not disagreements(TEXTS)


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("chapters/bc.ipynb", f"@{OLD[1]}", "@v9.9.9"),
        ("chapters/bc.ipynb", f'expect(\\"{OLD[1][1:]}\\"', 'expect(\\"9.9.9\\"'),
        ("chapters/bc.ipynb", OLD[0], NEW[0]),
        ("CITATION.cff", f"version: {OLD[1][1:]}", "version: 9.9.9"),
        ("offrl_nb/__init__.py", f'"{OLD[1][1:]}"', '"9.9.9"'),
        ("chapters/using_this_book.md", OLD[0], NEW[0]),
        ("repository.yml", OLD[1], "v9.9.9"),
    ],
)
def test_a_place_that_disagrees_is_noticed(path, old, new):
    assert old in TEXTS[path]
    assert disagreements(TEXTS | {path: TEXTS[path].replace(old, new, 1)})


def test_there_and_back():
    after = renewed(TEXTS, OLD, NEW)
    assert set_repo.current(after) == NEW
    assert not disagreements(after)
    owner, name, _ = names(*OLD)
    address = re.compile(rf"{owner}(\.github\.io)?/{re.escape(name)}\b|\bcd {re.escape(name)}\b")
    others_releases = (".", "results/", "benchmarks/", "data/", "tests/", "_static/")
    for path, text in after.items():
        assert not address.search(text), path
        assert path.startswith((*others_releases, "requirements")) or OLD[1] not in text, path
    assert renewed(after, NEW, NEW) == after
    assert renewed(after, NEW, OLD) == TEXTS


def test_only_a_few_lines_of_a_notebook_change_and_no_output():
    def without_sources(text):
        notebook = json.loads(text)
        for cell in notebook["cells"]:
            cell.pop("source")
        return notebook

    for path, after in renewed(TEXTS, OLD, NEW).items():
        if path.endswith(".ipynb") and after != TEXTS[path]:
            assert without_sources(after) == without_sources(TEXTS[path])
            lines = zip(TEXTS[path].split("\n"), after.split("\n"), strict=True)
            assert sum(a != b for a, b in lines) <= 10


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
    ],
)
def test_forms_of_the_address(path, before, after):
    old, new = names(*OLD), names(*NEW)
    values = {"o": old[0], "n": old[1], "t": OLD[1]}
    values |= {"O": new[0], "N": new[1], "T": NEW[1]}
    text = set_repo.renew(path, before.format(**values), OLD, NEW)
    assert text == after.format(**values)


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
    ],
)
def test_a_mistake_is_one_sentence(url, tag):
    message = set_repo.mistake(url, tag)
    assert "\n" not in message
    assert ("TAG" in message) or ("URL" in message) or ("another name" in message)


def test_files_are_written_only_for_a_right_address(tmp_path, capsys):
    paths = ["repository.yml", "CITATION.cff", "README.md", "CHANGELOG.md", "chapters/bc.ipynb"]
    for path in paths:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        shutil.copy2(ROOT / path, tmp_path / path)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)

    def snapshot():
        return {path: (tmp_path / path).read_bytes() for path in paths}

    before = snapshot()
    for url, tag in (("", ""), (NEW[0], "0.2.0")):
        assert "\n" not in set_repo.main(tmp_path, url, tag)
    assert snapshot() == before
    assert set_repo.main(tmp_path, *NEW) == 0
    changed = sorted(path for path in paths if before[path] != snapshot()[path])
    assert changed == sorted(set(paths) - {"CHANGELOG.md"})
    printed = capsys.readouterr().out
    assert printed.splitlines()[: len(changed)] == changed
    for step in (
        f"git tag {NEW[1]}",
        "git push --tags",
        "Pages",
        "https://some-body.github.io/" + "a.book/",
    ):
        assert step in printed
    assert set_repo.main(tmp_path, *NEW) == 0
    assert "already" in capsys.readouterr().out
    assert set_repo.main(tmp_path, *OLD) == 0
    assert snapshot() == before


def git(folder, *words):
    who = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org"]
    subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)


def test_the_tag_has_to_be_there_and_to_name_the_address(tmp_path):
    url, tag = NEW
    (tmp_path / "repository.yml").write_text(f"url: {url}\ntag: {tag}\n")
    git(tmp_path, "init")
    assert "does not exist yet" in set_repo.step_for_tag(tmp_path, url, tag)
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "a release")
    git(tmp_path, "tag", tag)
    assert "nothing to do" in set_repo.step_for_tag(tmp_path, url, tag)
    elsewhere = set_repo.step_for_tag(tmp_path, url + "-2", tag)
    assert "another address" in elsewhere and "\n" not in elsewhere


def test_a_bare_python_is_enough():
    """No package is needed, not even those that come with pip."""
    script = ROOT / "scripts" / "set_repo.py"
    done = subprocess.run(
        [sys.executable, "-I", "-S", script], capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 1 and done.stderr.startswith("Say what is new")
    (recipe,) = re.findall(r"(?m)^set-repo:(.*)\n", (ROOT / "Makefile").read_text())
    assert "READY" not in recipe, "the environment would be made first"


def test_code_means_the_same_at_another_address():
    """A script that asks for the placeholder by its whole name would be renamed with it."""
    after = renewed(TEXTS, OLD, NEW)
    code = [
        path for path in TEXTS if path.startswith(("scripts/", "_ext/")) and path.endswith(".py")
    ]
    assert [path for path in code if after[path] != TEXTS[path]] == []
