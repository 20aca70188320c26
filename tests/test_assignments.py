"""Student notebooks: no solution left, and an unsolved one runs to its end. Their text: test_colab_copies.py."""

import re
import sys

import nbformat
import pytest
from nbclient import NotebookClient
from notebooks import ROOT, Chapter, chapters, source, tags

sys.path.insert(0, str(ROOT / "scripts"))
import assignments as script

PAIRS = [(c, Chapter(ROOT / "assignments" / "chapters" / c.path.name)) for c in chapters()]
every = pytest.mark.parametrize(("chapter", "assignment"), PAIRS, ids=lambda c: c.slug)


@every
def test_no_solution_and_no_output_is_left(chapter, assignment):
    for cell in assignment.code:
        assert not cell["outputs"] and cell["execution_count"] is None
    assert assignment.text.count(script.STUB) == len(chapter.exercises())
    for exercise in chapter.exercises():
        solution = re.search(
            r"(?s)# BEGIN SOLUTION\n(.*?)# END SOLUTION", source(exercise.solution)
        )
        lines = map(str.strip, solution[1].splitlines())
        for line in (line for line in lines if len(line) > 8):
            stubbed = [source(c) for c in assignment.tagged("exercise")]
            assert not any(line in text for text in stubbed), line


@every
def test_it_says_that_it_is_one_and_names_every_exercise(chapter, assignment):
    assert "**This is the assignment.**" in assignment.prose
    assert set().union(*map(tags, assignment.cells)) <= {"setup", "method", "exercise", "check"}
    for exercise in chapter.exercises():
        assert f"**Exercise: {exercise.title}**" in assignment.prose


@every
def test_an_unsolved_notebook_runs_to_its_end_and_fails_strictly_in_its_checks_only(
    chapter, assignment, monkeypatch
):
    monkeypatch.setenv("OFFRL_SIZE", "fast")
    monkeypatch.delenv("OFFRL_STRICT", raising=False)
    notebook = nbformat.read(assignment.path, 4)
    last = len(notebook.cells)
    checks = [cell.source for cell in notebook.cells if "check" in cell.metadata.get("tags", [])]
    strict = ['import os\nos.environ["OFFRL_STRICT"] = "1"', *checks]
    notebook.cells += [nbformat.v4.new_code_cell(text) for text in strict]
    NotebookClient(notebook, timeout=300, allow_errors=True).execute(cwd=str(ROOT / "assignments"))
    errors = [[o for o in c.get("outputs", []) if o.output_type == "error"] for c in notebook.cells]
    assert not any(errors[: last + 1]), "a cell of the unsolved notebook raises"
    assert all("not answered yet" in found[0].evalue for found in errors[last + 1 :])
    printed = "".join(o.get("text", "") for c in notebook.cells for o in c.get("outputs", []))
    assert printed.count("✗") == len(chapter.exercises()) == len(checks)
    hints = [
        line for line in printed.splitlines() if "✗" in line and not line.endswith("answered yet")
    ]
    assert not hints, "a hint comes after a wrong answer, not before any"
    assert f"0 of {len(checks)} checks pass." in printed
