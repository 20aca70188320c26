"""Copies of the chapters, solved (colab/) and as assignments: plain Markdown, the site's numbers, links that lead somewhere.

No chapter is run here; `setup_cell`, which begins every notebook, is.
"""

import os
import re
import subprocess
import sys
from dataclasses import replace
from urllib.parse import urldefrag

import pytest
import yaml
from notebooks import ROOT, Chapter, chapters, source, tags

sys.path.insert(0, str(ROOT / "scripts"))
import copies

import colab

BOOK = copies.read_book()
PUBLISHED = replace(BOOK, url="https://github.com/me/book", tag="v9.9.9")
HTML = ROOT / "_build" / "html"
COPIES = [
    Chapter(ROOT / folder / "chapters" / chapter.path.name)
    for folder in ("colab", "assignments")
    for chapter in chapters()
]
every = pytest.mark.parametrize(
    "copy", COPIES, ids=lambda c: c.path.relative_to(ROOT).with_suffix("").as_posix()
)
every_chapter = pytest.mark.parametrize("chapter", chapters(), ids=lambda c: c.slug)
LINK = re.compile(r"(?<!\\)\[[^\]]*\]\(([^)\s]+)\)")


def without_code(text):
    return re.sub(r"(?ms)^ *```.*?^ *```|(?<!`)`[^`\n]+`", "", text)


def links(text):
    """Those of a text in plain Markdown; neither code nor formulas hold any."""
    return LINK.findall(re.sub(r"(?s)\$\$.*?\$\$|\$[^$\n]+\$", "", without_code(text)))


def test_what_is_generated_is_current():
    command = [sys.executable, "scripts/colab.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_copy_that_differs_and_one_without_a_chapter_are_named_and_mended(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(copies, "ROOT", tmp_path)
    wanted = {tmp_path / "colab" / "new.ipynb": "new"}
    (tmp_path / "colab").mkdir()
    (tmp_path / "colab" / "old.ipynb").write_text("old")
    assert copies.store(wanted, tmp_path / "colab", True, "make colab") == 1
    said = capsys.readouterr().out
    assert "colab/new.ipynb does not match its chapter; run `make colab`." in said
    assert "colab/old.ipynb" in said
    assert copies.store(wanted, tmp_path / "colab", False, "make colab") == 0
    assert [p.read_text() for p in (tmp_path / "colab").iterdir()] == ["new"]
    assert copies.store(wanted, tmp_path / "colab", True, "make colab") == 0


# The text


@every
def test_nothing_that_only_the_site_understands_is_left(copy):
    raw = r"(?m)\{[\w:-]+\}`[^`]*`|^[> ]*[:`]{3,}.*\{.*|^[> ]*:{3,} *$|^\([\w:-]+\)=|\$\$ *\([\w:-]+\)|\{\{"
    assert not (left := re.search(raw, without_code(copy.prose))), left[0]
    fences = re.findall(r"(?m)^[> ]*(?::{3,}|`{3,}\{).*$", copy.prose)
    assert not fences


@every_chapter
def test_a_copy_has_the_code_and_the_tags_of_its_chapter_and_no_outputs(chapter):
    copy = Chapter(colab.TARGET / chapter.path.name)
    pairs = list(zip(chapter.cells, copy.cells, strict=False))
    assert len(pairs) == len(chapter.cells)
    for old, new in pairs:
        assert new["cell_type"] == old["cell_type"] and tags(new) == tags(old)
        if new["cell_type"] == "code":
            assert not new["outputs"] and new["execution_count"] is None
            same = source(new) == source(old)
            assert same or "setup" in tags(new), source(old).splitlines()[0]
            folded = new["metadata"].get("jupyter", {}).get("source_hidden", False)
            assert folded == ("hide-input" in tags(new))
    assert copy.path.stat().st_size < 300_000


@every_chapter
def test_formulas_have_the_numbers_that_the_site_prints(chapter):
    """Needs the site; that a reference leads to a formula is asked without it."""
    copy = Chapter(colab.TARGET / chapter.path.name)
    labels = re.findall(r"\$\$ *\(([\w:-]+)\)", chapter.prose)
    numbers = [BOOK.numbers[label] for label in labels]
    assert re.findall(r"\\tag\{([^}]*)\}", copy.prose) == numbers
    referred = [BOOK.numbers[x] for x in re.findall(r"\{eq\}`([^`]+)`", chapter.prose)]
    for number in set(referred):
        assert copy.prose.count(f"({number})") >= referred.count(number)
    page = HTML / "chapters" / f"{chapter.slug}.html"
    if not page.exists() or page.stat().st_mtime < chapter.path.stat().st_mtime:
        pytest.skip("The site is not built, or older than the chapter.")
    shown = re.findall(
        r'id="equation-([\w-]+)">\s*<span class="eqno">\(([\d.]+)\)', page.read_text()
    )
    assert dict(zip(labels, numbers, strict=True)) == dict(shown)


def test_equations_count_within_a_numbered_chapter_and_otherwise_together():
    formula = "$$\nx\n$$ ({})\n\n$$\nwithout a label\n$$\n\n$$y$$ ({})".format
    texts = {"a": formula("a1", "a2"), "b": formula("b1", "b2"), "c": formula("c1", "c2")}
    found = copies.equation_numbers(texts, {"a": None, "b": 7, "c": None})
    assert found == {"a1": "1", "a2": "2", "b1": "7.1", "b2": "7.2", "c1": "3", "c2": "4"}


@every_chapter
def test_every_source_that_is_cited_is_listed(chapter):
    keys = ",".join(re.findall(r"\{cite:[pt]\}`([^`]+)`", chapter.prose)).split(",")
    keys = {key.strip() for key in keys} - {""}
    last = source(Chapter(colab.TARGET / chapter.path.name).cells[-1])
    assert last.count("\n- ") == len(keys)
    for key in keys:
        name = copies.last_name(BOOK.entries[key].persons["author"][0])
        assert f"- {name}, " in last and not re.search(r"[{}]|\\", last)


# Links


@every
def test_every_link_leads_to_a_file_or_to_an_address(copy):
    found = links(copy.prose)
    assert found
    for link in found:
        there = (copy.path.parent / urldefrag(link).url).is_file()
        assert link.startswith("https://") or there, f"nothing is at {link}"


@every_chapter
def test_once_the_book_has_an_address_links_to_its_pages_lead_there(chapter):
    cited = copies.cited_in(chapter.prose, PUBLISHED)
    found = links(copies.plain(chapter.prose, PUBLISHED, cited))
    assert len(found) == len(links(chapter.prose))
    site = "https://me.github.io/book/"
    for link in found:
        assert link.startswith("https://")
        if link.startswith(site):
            assert urldefrag(link).url.removeprefix(site).removesuffix(".html") in BOOK.pages


@pytest.mark.parametrize(
    ("link", "here", "there"),
    [
        ("bc", "bc.ipynb", "https://me.github.io/book/chapters/bc.html"),
        ("bc.ipynb", "bc.ipynb", "https://me.github.io/book/chapters/bc.html"),
        ("bc.ipynb#traps", "bc.ipynb", "https://me.github.io/book/chapters/bc.html#traps"),
        ("notation.md", "../../chapters/notation.md", "https://me.github.io/book/chapters/notation.html"),
        ("../index.md", "../../index.md", "https://me.github.io/book/index.html"),
        ("../LICENSE", "../../LICENSE", "https://github.com/me/book/raw/v9.9.9/LICENSE"),
        ("https://a.org/b", "https://a.org/b", "https://a.org/b"),
    ],
)  # fmt: skip
def test_where_a_link_leads(link, here, there):
    unpublished = replace(BOOK, url="https://github.com/OWNER/any")
    assert copies.target(link, unpublished) == here
    assert copies.target(link, PUBLISHED) == there


# What is written out


def plain(text, numbers=(), names=()):
    book = replace(BOOK, numbers=dict(numbers), names=BOOK.names | dict(names))
    return copies.plain(text, book, copies.cited_in(text, book))


def test_boxes_equations_citations_and_references_are_written_out():
    text = (
        "(label)=\n:::{exercise} A title\n:label: ex\n\nDo {eq}`eq-a`.\n:::\n\n$$\nx\n$$ (eq-a)\n\n"
        "By {cite:t}`ross2010efficient` {cite:p}`ross2010efficient, chen2021dt`, {ref}`ex`, "
        "{ref}`this <ex>` and {doc}`bc`."
    )
    assert plain(text, {"eq-a": "4.3"}, {"ex": "A title", "chapters/bc": "Cloning"}) == (
        "> **Exercise: A title**\n>\n> Do (4.3).\n\n$$\nx \\tag{4.3}\n$$\n\n"
        "By Ross and Bagnell (2010) (Ross and Bagnell, 2010; Chen et al., 2021), A title, "
        f"this and [Cloning]({BOOK.address('chapters/bc')})."
    )


def test_a_letter_tells_two_papers_of_one_year_apart_where_both_are_cited():
    both = "{cite:t}`fujimoto2019bcq,fujimoto2019benchmarking`"
    assert plain(both) == "Fujimoto et al. (2019a) and Fujimoto et al. (2019b)"
    assert plain("{cite:t}`fujimoto2019bcq`") == "Fujimoto et al. (2019)"


def test_boxes_in_boxes_folds_and_formulas_in_boxes():
    text = (
        "::::{admonition} In short\n:class: in-short\n\nIt is\n\n$$\na \\\\\nb\n$$ (eq-a)\n\n"
        ":::{note}\nSmall.\n:::\n::::\n\n:::{dropdown} All trials\n\n| a | b |\n|---|---|\n:::\n\n"
        ":::{admonition} More\n:class: tip dropdown\nHidden.\n:::"
    )
    assert plain(text, {"eq-a": "1.1"}) == (
        "> **In short**\n>\n> It is\n>\n> $$a \\\\ b \\tag{1.1}$$\n>\n> > **Note**\n> >\n> > Small.\n\n"
        "<details>\n<summary>All trials</summary>\n\n| a | b |\n|---|---|\n\n</details>\n\n"
        "<details>\n<summary>More</summary>\n\nHidden.\n\n</details>"
    )


def test_code_and_formulas_are_left_alone():
    text = "`[a](bc)` and $Q[s](a)$\n\n```python\nx[0](bc)  # {eq}`eq-a`\n```\n\n`` {eq}`eq-a` ``"
    assert plain(text) == text


@pytest.mark.parametrize(
    "unknown", ["{prf:ref}`x`", "```{note}\nfenced\n```", ":::{tab-set}\nx\n:::"]
)
def test_what_the_script_does_not_know_is_named(unknown):
    with pytest.raises(ValueError, match="does not know how to write out"):
        plain(f"text\n\n{unknown}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{eq}`eq-nowhere`", "refers to 'eq-nowhere'"),
        ("{ref}`nowhere`", "refers to 'nowhere'"),
        ("[x](nowhere)", "refers to 'nowhere'"),
        ("{cite:t}`nobody2000`", "references.bib has no nobody2000"),
    ],
)
def test_what_is_not_there_is_named(text, said):
    with pytest.raises(ValueError, match=said):
        plain(text)


# The setup cell


@every
def test_every_copy_begins_with_the_setup_cell(copy):
    assert source(copy.code[0]) == copies.setup_cell(BOOK.url, BOOK.tag)
    assert "setup" in tags(copy.code[0])


def test_the_template_has_the_setup_cell_too():
    template = Chapter(ROOT / "scripts" / "template" / "chapter.ipynb")
    assert source(template.code[0]) == copies.setup_cell(BOOK.url, BOOK.tag)


def test_the_address_is_that_of_repository_yml():
    repository = yaml.safe_load((ROOT / "repository.yml").read_text())
    assert (BOOK.url, BOOK.tag) == (repository["url"], repository["tag"])
    cell = copies.setup_cell(PUBLISHED.url, PUBLISHED.tag)
    assert '"git+https://github.com/me/book@v9.9.9"' in cell and 'expect("9.9.9")' in cell


def begin(folder, *options, **environment):
    """Run a copy from a folder of its own as far as its setup cell."""
    cell = source(COPIES[0].code[0])
    command = [sys.executable, *options, "-c", cell]
    return subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True
    )


def stand_in(folder, text):
    """A pip of our own; -S keeps the packages of this environment away from the notebook."""
    (folder / "pip").mkdir()
    (folder / "pip" / "__init__.py").touch()
    (folder / "pip" / "__main__.py").write_text(text)
    return begin(folder, "-S", PYTHONPATH=str(folder))


def test_where_the_package_is_there_a_lone_copy_just_begins(tmp_path):
    done = begin(tmp_path)
    assert done.returncode == 0, done.stderr
    assert not done.stdout


def test_where_pip_fails_one_sentence_says_what_to_do(tmp_path):
    done = stand_in(tmp_path, "raise SystemExit(1)")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    assert "run `pip install -e .` in its folder, then restart the kernel" in done.stderr


def test_where_the_package_is_missing_it_is_installed_from_the_release(tmp_path):
    package = "def expect(version): print('expects', version)"
    done = stand_in(
        tmp_path,
        "import pathlib, sys\nprint(sys.argv[1:], flush=True)\n"
        f'pathlib.Path("offrl_nb.py").write_text("{package}")',
    )
    assert done.returncode == 0, done.stderr
    installed = f"['install', '-q', 'git+{BOOK.url}@{BOOK.tag}']"
    assert done.stdout.splitlines() == [installed, f"expects {BOOK.tag[1:]}"]
