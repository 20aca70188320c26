"""The measures of a chapter: what counts, the line of times, and the budgets that a lesson keeps."""

import copy
import json
import os
import stat
import subprocess
import sys

import pytest
from notebooks import ROOT, chapters

sys.path.insert(0, str(ROOT / "scripts"))
import measures

PICTURE = {"output_type": "display_data", "data": {"image/png": "AAAA"}, "metadata": {}}
ALT = {"mystnb": {"image": {"alt": "Two curves that cross at three."}}}


def text_cell(text, *tags):
    return {"cell_type": "markdown", "metadata": {"tags": list(tags)}, "source": text}


def code_cell(text, *tags, outputs=(), metadata=None):
    given = {"tags": list(tags)} | (metadata or {})
    empty = {"execution_count": None, "outputs": list(outputs)}
    return {"cell_type": "code", "metadata": given, "source": text} | empty


def lesson(*cells, seconds=75, **about):
    """A made-up chapter of the form `lesson` that keeps all budgets, with cells put into its lesson."""
    head = [text_cell("# A title\n\nA question?"), code_cell("import offrl_nb\n" * 9, "setup")]
    end = [text_cell("## Going deeper\n\nFour more words here.")]
    made = {
        "cells": [*head, *copy.deepcopy(cells), *end],
        "metadata": {"offrl": {"form": "lesson", "cpu_seconds": seconds} | about},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    for number, cell in enumerate(made["cells"]):
        cell["id"] = f"cell-{number}"
    return made


def stored(notebook, folder):
    """The notebook as a file that `make execute` has left: with its line of times."""
    path = folder / "made_up.ipynb"
    path.write_text(json.dumps(notebook))
    measures.write_header(path)
    return path


def measured(*cells):
    return measures.measure(json.dumps(lesson(*cells)))


def numbered(count):
    return "\n".join(f"x_{number} = {number}" for number in range(count))


# What counts


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Three plain words.", 3),
        ("A dash – and a bar | do not count.", 8),
        ("The value $V(s) = \\max_a Q(s, a)$, of course.", 5),
        ("One\n\n$$\nV = r + \\gamma V'\n$$ (eq-value)\n\ntwo.", 12),
        ("by {eq}`value` of {cite:p}`levine2020, fujimoto2019`", 4),
        ("[The problem](problem.ipynb) and ![a picture](picture.png)", 3),
        ("(a-label)=\n## A heading\n<!-- a comment -->", 2),
        (":::{exercise} Two words\n:label: ex-two\nOne more.\n:::", 4),
        (
            "::::{admonition} In short\n:class: in-short\n:::{dropdown} A fold\nread too\n:::\n::::",
            6,
        ),
        ("| method | return |\n|:--|--:|\n| IQL | 3.5 |", 4),
        ("Call `make $(X)` once, `$Y` twice.", 6),
        ("Before\n\n```python\nnot = words\n```\n\nafter.", 2),
    ],
)
def test_words(text, count):
    assert measures.words(text) == count


def test_folded_cells_do_not_count():
    shown = measured(code_cell("a = 1\n\n# why\nb = 2"), text_cell("```\none\n\ntwo\n```"))
    assert shown["visible lines of code in the lesson"] == 5
    for tag in ("setup", "hide-input", "hide-cell", "remove-input", "remove-cell"):
        folded = measured(code_cell(numbered(90), tag), code_cell(numbered(90), "method", tag))
        assert folded["visible lines of code in all"] == 0, tag
        assert folded["lines in the longest visible cell"] == 0, tag
        assert folded["lines in the longest method cell"] == 0, tag
        assert folded["lines of the method"] == 90, tag


def test_the_lesson_ends_at_its_heading_within_a_cell_too():
    halves = "five words in the lesson\n\n### Going deeper: more\n\nfour words behind it"
    found = measured(text_cell(halves), code_cell(numbered(3)))
    words = {part: found[f"words {part}"] for part in measures.PARTS}
    assert words == {"in the lesson": 4 + 5, "going deeper": 3 + 4 + 2 + 4, "in all": 22}
    assert found["visible lines of code in the lesson"] == 0
    assert found["visible lines of code going deeper"] == 3


def test_reading_minutes():
    found = measured(text_cell("word " * 296), code_cell(numbered(14)))
    assert found["reading minutes in the lesson"] == 3  # 300 / 150 + 14 / 15
    assert found["reading minutes going deeper"] == 1  # 6 / 150, rounded up
    assert found["reading minutes in all"] == 3


def test_method_cells_have_lengths_of_their_own():
    method = "import math\n\n\ndef f(x):\n    '''A docstring.'''\n    # why\n    return math.pi * x"
    found = measured(code_cell(numbered(4)), code_cell(method, "method"))
    assert found["lines in the longest visible cell"] == 4
    assert found["lines in the longest method cell"] == 5
    assert found["lines of the method"] == 2


@pytest.mark.parametrize(
    ("cell", "missing"),
    [
        (code_cell("plot()", outputs=[PICTURE], metadata=ALT), 0),
        (code_cell("plot()", outputs=[PICTURE]), 1),
        (code_cell("plot()", outputs=[PICTURE, PICTURE]), 2),
        (code_cell("plot()", outputs=[{"output_type": "stream", "text": "no picture"}]), 0),
        (text_cell("![a map](map.png) ![](other.png)"), 1),
        (text_cell('<img src="a.png" alt=""> <img alt="A map." src="b.png">'), 1),
    ],
)
def test_figures_without_alt(cell, missing):
    assert measures.figures_without_alt(cell) == missing


@pytest.mark.parametrize(("alt", "missing"), [("alt='V slides up.'", 0), ("", 1)])
def test_a_slider_says_in_its_html_what_it_shows(alt, missing):
    html = f'<figure><img src="data:x" onload="a => b" {alt}><input type="range"></figure>'
    output = {"output_type": "display_data", "data": {"text/html": [html], "image/png": "AAAA"}}
    assert measures.figures_without_alt(code_cell("slider()", outputs=[output])) == missing


# The line of times


def test_the_line_of_times_is_written_once(tmp_path):
    path = stored(lesson(text_cell("word " * 5000)), tmp_path)
    once, cells = path.read_text(), json.loads(path.read_text())["cells"]
    said = "Lesson: 35 minutes. Going deeper: 5 more. Running all cells: 80 seconds on one core."
    assert cells[1]["source"] == [said] and cells[1]["metadata"]["tags"] == [measures.HEADER]
    measures.write_header(path)
    assert path.read_text() == once


def test_a_line_of_times_is_brought_up_to_date_where_it_stands(tmp_path):
    old = text_cell("Lesson: 1 minute.", measures.HEADER)
    path = stored(lesson(text_cell("first"), old), tmp_path)
    lines = [c["source"] for c in json.loads(path.read_text())["cells"]]
    assert "Lesson: 1 minute." not in lines and len(lines) == 5
    assert lines[3][0].startswith("Lesson: 5 minutes.")


def test_other_chapters_get_no_line_of_times(tmp_path):
    notebook = lesson()
    del notebook["metadata"]["offrl"]["form"]
    assert json.loads(stored(notebook, tmp_path).read_text()) == notebook


def test_the_times_of_an_unmeasured_lesson_are_not_written(tmp_path):
    with pytest.raises(ValueError, match="was never measured"):
        stored(lesson(seconds=None) | {"metadata": {"offrl": {"form": "lesson"}}}, tmp_path)


def script(*arguments):
    command = [sys.executable, "scripts/measures.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def runnable(code, folder):
    notebook = lesson(code_cell(code), seconds=0)
    notebook["metadata"]["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    path = folder / "made_up.ipynb"
    path.write_text(json.dumps(notebook).replace("import offrl_nb", "pass"))
    return path


BURN = """
import subprocess, sys
loop = "import time\\nwhile time.process_time() < 2: pass"
subprocess.run([sys.executable, "-c", loop])
print("done")
"""


def test_execution_stores_the_seconds_of_the_kernel_and_its_children(tmp_path):
    path = runnable(BURN, tmp_path)
    done = script("--execute", path)
    assert done.returncode == 0, done.stderr
    notebook = json.loads(path.read_text())
    seconds = notebook["metadata"]["offrl"]["cpu_seconds"]
    assert 2 < seconds < 30
    assert "".join(notebook["cells"][1]["source"]) == measures.header(
        measures.measure(path.read_text())
    )
    assert notebook["cells"][3]["outputs"][0]["text"] == ["done\n"]


def test_a_failed_execution_stores_nothing(tmp_path):
    path = runnable("1 / 0", tmp_path)
    before = path.read_text()
    assert script("--execute", path).returncode != 0
    assert path.read_text() == before


# The budgets of a lesson

LONG = {"output_type": "stream", "name": "stdout", "text": "A" * 1_500_000}
IMAGE_CELL = code_cell("plot()", outputs=[PICTURE])
TOO_MUCH = {
    "reading minutes in the lesson": lesson(
        text_cell("word " * 4700), *[code_cell(numbered(25))] * 9
    ),
    "reading minutes in all": lesson(*[code_cell(numbered(25))] * 49),
    "words in all": lesson(text_cell("word " * 4800)),
    "lines in the longest visible cell": lesson(code_cell(numbered(26))),
    "lines in the longest method cell": lesson(code_cell(numbered(41), "method")),
    "lines of the method": lesson(*[code_cell(numbered(40), "method", "hide-input")] * 6),
    "figures without alt text": lesson(IMAGE_CELL),
    "kB of the notebook": lesson(code_cell("print(x)", outputs=[LONG])),
    "processor seconds": lesson(seconds=121),
}


def test_a_lesson_may_use_its_budgets_up(tmp_path):
    full = lesson(
        text_cell("word " * 4790),
        code_cell(numbered(25)),
        *[code_cell(numbered(40), "method")] * 4,
        code_cell("plot()", outputs=[PICTURE], metadata=ALT),
        seconds=120,
    )
    full["cells"] += [code_cell(numbered(25))] * 21
    assert measures.mistakes("made_up", stored(full, tmp_path).read_text()) == []


@pytest.mark.parametrize("name", measures.LIMITS)
def test_each_budget_can_be_overdrawn(name, tmp_path):
    said = measures.mistakes("made_up", stored(TOO_MUCH[name], tmp_path).read_text())
    sentence = next(line for line in said if f" {name}, at most" in line)
    assert sentence.startswith("made_up: ") and sentence.endswith(".") and "{" not in sentence
    assert len(said) == 1 or "minutes" in name


def test_a_lesson_without_its_second_half(tmp_path):
    notebook = lesson(text_cell("All of it."))
    notebook["cells"].pop()
    said = measures.mistakes("made_up", stored(notebook, tmp_path).read_text())
    assert said == ['made_up: no heading "Going deeper"; put one where the lesson ends.']


def test_a_lesson_whose_time_is_not_known():
    notebook = lesson()
    del notebook["metadata"]["offrl"]["cpu_seconds"]
    (said,) = measures.mistakes("made_up", json.dumps(notebook))
    assert said.endswith("run `make execute CH=made_up`.")


def test_a_header_that_is_out_of_date(tmp_path):
    notebook = json.loads(stored(lesson(), tmp_path).read_text())
    notebook["cells"].insert(2, text_cell("word " * 3000))
    (said,) = measures.mistakes("made_up", json.dumps(notebook))
    assert said.endswith("run `python scripts/measures.py --header chapters/made_up.ipynb`.")


def test_lessons_keep_their_budgets():
    lessons = [chapter for chapter in chapters() if chapter.about.get("form") == "lesson"]
    said = [line for chapter in lessons for line in measures.mistakes(chapter.slug, chapter.text)]
    assert not said, "\n".join(said)


# The command


def test_the_table_shows_measures_beside_what_is_allowed(tmp_path):
    done = script(stored(lesson(text_cell("word " * 300)), tmp_path))
    rows = [line.rsplit(maxsplit=2) for line in done.stdout.splitlines()[1:]]
    shown = {name: (value, limit) for name, value, limit in rows}
    assert set(shown) == set(measured())
    assert shown["reading minutes in the lesson"] == ("3", "45")
    assert shown["words going deeper"] == ("6", "-")
    assert shown["processor seconds"] == ("75", "120")


@pytest.mark.parametrize("text", [None, "no JSON", "{}", "[]"])
def test_what_is_no_notebook_is_named(text, tmp_path):
    path = tmp_path / "made_up.ipynb"
    if text is not None:
        path.write_text(text)
    done = script(path)
    assert done.returncode == 2
    assert f"{path} cannot be read as a notebook" in done.stderr.splitlines()[-1]


STANDIN = """#!/bin/sh
echo "$@ threads=$OMP_NUM_THREADS" >> "$NOTES"
"""


def test_make_chapter_measures_and_make_execute_stores_the_times(tmp_path):
    """Both scripts with a stand-in for Python (and for jupyter-book beside it) that notes its calls."""
    notes, tree = tmp_path / "notes", tmp_path / "tree"
    for name in ("python", "jupyter-book"):
        (tmp_path / name).write_text(STANDIN)
        (tmp_path / name).chmod(stat.S_IRWXU)
    for folder in ("chapters", "offrl_nb", "_static", "_ext"):
        (tree / folder).mkdir(parents=True)
    files = "_config.yml _toc.yml repository.yml index.md references.bib CITATION.cff"
    for file in files.split():
        (tree / file).touch()
    (tree / "chapters" / "made_up.ipynb").touch()
    for name in ("chapter", "execute"):
        command = ["sh", str(ROOT / "scripts" / f"{name}.sh"), str(tmp_path / "python"), "made_up"]
        environment = os.environ | {"NOTES": str(notes)}
        subprocess.run(command, cwd=tree, env=environment, check=True, capture_output=True)
    calls = notes.read_text()
    assert "scripts/measures.py chapters/made_up.ipynb" in calls
    timed, tidied = (
        calls.index(f"scripts/{call} chapters/made_up.ipynb threads=1")
        for call in ("measures.py --execute", "outputs.py")
    )
    assert timed < tidied
