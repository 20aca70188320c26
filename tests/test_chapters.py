"""The contract that every chapter of _toc.yml keeps; what it holds follows from the chapter's `kind`."""

import ast
import contextlib
import dataclasses
import importlib
import io
import itertools
import re
import runpy
import subprocess
import sys
import typing

import pytest
import torch
import yaml
from notebooks import ROOT, Chapter, chapters, source, tags

from offrl_nb import data, evaluator, load
from offrl_nb.results import LENGTHS

ALL, METHODS = chapters(), chapters("method")
TAUGHT = METHODS + chapters("story")
every = pytest.mark.parametrize("chapter", ALL, ids=lambda c: c.slug)
every_method = pytest.mark.parametrize("chapter", METHODS, ids=lambda c: c.slug)
every_taught = pytest.mark.parametrize("chapter", TAUGHT, ids=lambda c: c.slug)
ANATOMY = (
    "fails",
    "idea",
    "derivation",
    "changes in code",
    "known",
    "experiment",
    "reading the curves",
    "what moves the number",
    "common misstatements",
    "your own data",
    "traps",
    "exercises",
    "notes and sources",
)
CASES = [  # every method x every dataset that its metadata names x every choice that its Config offers
    pytest.param(chapter.slug, dataset_id, settings, id=f"{chapter.slug}-{dataset_id}-{settings}")
    for chapter in TAUGHT
    for dataset_id in chapter.about.get("contract", [])
    for settings in [
        dict(zip(choices, values, strict=True))
        for choices in [
            {
                name: typing.get_args(hint)
                for name, hint in typing.get_type_hints(
                    importlib.import_module(f"offrl_nb.methods.{chapter.slug}").Config
                ).items()
                if typing.get_origin(hint) is typing.Literal
            }
        ]
        for values in itertools.product(*choices.values())
    ]
]


def test_there_are_chapters_and_each_says_its_kind():
    assert METHODS
    for chapter in ALL:
        assert chapter.about.get("kind") in ("method", "story", "page"), chapter.path


# Every chapter


@every
def test_executed_once_from_top_to_bottom(chapter):
    counts = [cell["execution_count"] for cell in chapter.code]
    assert counts == list(range(1, len(counts) + 1)), "run `make execute`"


@every
def test_outputs_are_clean(chapter):
    for cell in chapter.code:
        assert not {"execution", "collapsed", "ExecuteTime"} & cell["metadata"].keys()
        for output in cell["outputs"]:
            assert output["output_type"] != "error", source(cell)
            assert output.get("name") != "stderr", source(cell)
            text = "".join(output.get("text", "")) + str(
                output.get("data", {}).get("text/plain", "")
            )
            assert len(text) < 6000, "an output is too long"
            assert "not judged" not in text and "✗" not in text, "stored at another size"
    assert not re.search(r"(/home/|/root/|/tmp/|/work/|/Users/|C:\\\\)", chapter.text)
    assert chapter.path.stat().st_size < 2_000_000
    assert len({cell["id"] for cell in chapter.cells}) == len(chapter.cells)


@every
def test_figures_have_alternative_text(chapter):
    for cell in chapter.code:
        if any("image/png" in output.get("data", {}) for output in cell["outputs"]):
            alt = cell["metadata"].get("mystnb", {}).get("image", {}).get("alt", "")
            assert len(alt) > 40, source(cell)


@every
def test_reads_the_same_on_the_site_on_github_and_in_colab(chapter):
    assert not re.search(r"(?m)^```\{", chapter.prose), "use colon fences"
    assert "{glue" not in chapter.prose
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    macros = config["sphinx"]["config"]["mathjax3_config"]["tex"]["macros"]
    for macro in macros:  # only our site knows them
        assert not re.search(rf"\\{macro}(?![A-Za-z])", chapter.prose), f"write \\{macro} out"
    assert chapter.prose.count("\n# ") + chapter.prose.startswith("# ") == 1
    setup = chapter.code[0]
    assert {"setup", "hide-input"} <= set(tags(setup))
    assert "git+https://github.com/" in source(setup) and "offrl_nb.__version__" in source(setup)


@every
def test_every_column_of_a_table_has_a_name(chapter):
    """An empty header is read out as nothing by a screen reader."""
    for header in re.findall(r"(?m)^\|(.*)\|\n\|[-:| ]+\|$", chapter.prose):
        assert all(name.strip() for name in re.split(r"(?<!\\)\|", header)), header


@every
def test_cells_are_short(chapter):
    lengths = sorted(
        sum(bool(line.strip()) for line in source(c).splitlines()) for c in chapter.code
    )
    assert lengths[len(lengths) // 2] <= 14 and lengths[-1] <= 45, lengths


# Chapters that teach: methods and stories


@every_method
def test_anatomy(chapter):
    headings = [line.lower() for line in re.findall(r"(?m)^##+ (.*)$", chapter.prose)]
    places = []
    for part in ANATOMY:
        at = [i for i, heading in enumerate(headings) if part in heading]
        assert at, f"no heading says {part!r}"
        places.append(at[0])
    assert places == sorted(places), "the parts stand in another order"
    assert "Implementation choices" in chapter.prose
    length = sum(lines_of_code(source(cell)) for cell in chapter.tagged("method"))
    assert 30 <= length <= 150, f"{length} lines of method cells"


def lines_of_code(text: str) -> int:
    """Lines without imports, docstrings, comments and blanks."""
    left_out = set()
    for node in ast.walk(ast.parse(text)):
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if docstring or isinstance(node, ast.Import | ast.ImportFrom):
            left_out.update(range(node.lineno, node.end_lineno + 1))
    lines = [line.strip() for i, line in enumerate(text.splitlines(), 1) if i not in left_out]
    return sum(bool(line) and not line.startswith("#") for line in lines)


@every_taught
def test_claims(chapter):
    text = "\n".join(source(cell) for cell in chapter.code)
    calls = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "claim"
    ]
    assert len(calls) >= (3 if chapter in METHODS else 6)
    for call in calls:
        assert len(call.args) >= 3, f"a claim without its numbers: {ast.unparse(call)}"
        assert not isinstance(call.args[1], ast.Constant), "a claim that cannot be false"
    ticks = chapter.text.count("✓ ")
    assert ticks >= len(calls)
    assert len(re.findall(r"(?m)^SEEDS = range\(5\)$", text)) == 1


@pytest.mark.parametrize("script", ["methods", "assignments", "export_figures"])
def test_what_is_generated_from_chapters_is_current(script):
    command = [sys.executable, f"scripts/{script}.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@every_taught
def test_method_cells_lean_on_nothing_else(chapter):
    code = "\n\n".join(source(cell) for cell in chapter.tagged("method"))
    imports = [n for n in ast.walk(ast.parse(code)) if isinstance(n, ast.Import | ast.ImportFrom)]
    roots = {(getattr(n, "module", None) or n.names[0].name).split(".")[0] for n in imports}
    assert roots <= {*sys.stdlib_module_names, "gymnasium", "numpy", "torch", "offrl_nb"}
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--select", "F", "--isolated", "-"],
        input=code,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


# The seeds of a method stay apart


def short(module, settings, updates):
    """A Config with few updates, and as few steps where a method goes online."""
    lengths = {name: updates for name in LENGTHS if hasattr(module.Config(), name)}
    return dataclasses.replace(module.Config(), **lengths, **settings)


def trained(slug, dataset, settings, seeds, updates):
    module = importlib.import_module(f"offrl_nb.methods.{slug}")
    nets, _ = module.train(dataset, short(module, settings, updates), seeds=seeds)
    return {name: value.detach() for name, value in nets.named_parameters()}


@pytest.mark.parametrize(("slug", "dataset_id", "settings"), CASES)
def test_nan_in_one_seed_reaches_no_other(slug, dataset_id, settings, monkeypatch):
    dataset = load(dataset_id)
    clean = trained(slug, dataset, settings, [0, 1, 2], 20)
    draw, drawn = data.Dataset.rows, []

    def poisoned(self, index):
        drawn.append(index.numel())
        batch = draw(self, index)
        for column in batch:
            if column.is_floating_point():
                column[0] = torch.nan
        return batch

    monkeypatch.setattr(data.Dataset, "rows", poisoned)
    sick = trained(slug, dataset, settings, [0, 1, 2], 20)
    alone = trained(slug, dataset, settings, [0], 1)
    for name, value in clean.items():
        axis = seed_axis(value, alone[name])
        others = torch.tensor([1, 2])
        assert torch.equal(
            value.index_select(axis, others), sick[name].index_select(axis, others)
        ), name
    reached = any(value.isnan().any() for value in sick.values())
    # a variant that learns from its own rows alone draws none
    assert reached or not sum(drawn), "the NaN reached nothing: no test"


@pytest.mark.parametrize(("slug", "dataset_id", "settings"), CASES)
def test_a_seed_trains_the_same_alone(slug, dataset_id, settings):
    torch.set_default_dtype(torch.float64)
    try:
        dataset = load(dataset_id).to(torch.float64)
        together = trained(slug, dataset, settings, [7, 3, 5], 30)
        alone = trained(slug, dataset, settings, [3], 30)
        again = trained(slug, dataset, settings, [3], 30)
    finally:
        torch.set_default_dtype(torch.float32)
    for name, value in together.items():
        seed = value.narrow(seed_axis(value, alone[name]), 1, 1)
        assert torch.allclose(seed, alone[name], atol=1e-9, rtol=1e-7), name
        assert torch.equal(alone[name], again[name]), f"{name}: two equal runs differ"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("slug", "dataset_id", "settings"), CASES)
def test_trains_and_evaluates_on_a_gpu(slug, dataset_id, settings):
    module = importlib.import_module(f"offrl_nb.methods.{slug}")
    config, dataset = short(module, settings, 20), load(dataset_id, "cuda")
    nets, log = module.train(dataset, config, [0, 1], evaluator(dataset, 2), evaluations=1)
    assert all(value.is_cuda for value in nets.parameters())
    assert log["return"].notna().sum() == 2


def seed_axis(several, one) -> int:
    return next(i for i, (a, b) in enumerate(zip(several.shape, one.shape, strict=True)) if a != b)


# Exercises


EXERCISES = [(chapter, exercise) for chapter in TAUGHT for exercise in chapter.exercises()]
every_exercise = pytest.mark.parametrize(
    ("chapter", "exercise"), EXERCISES, ids=[f"{c.slug}-{e.title}" for c, e in EXERCISES]
)


def wrong_answers(chapter: Chapter) -> dict[str, list[str]]:
    return runpy.run_path(ROOT / "tests" / "wrong_answers" / f"{chapter.slug}.py")["WRONG"]


def answer(chapter: Chapter, exercise, code: str) -> str:
    """Run an answer and its checks strictly; returns what was printed, raises when a check fails."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        space = {"__name__": "answer"}
        exec(chapter.definitions(), space)
        exec(code, space)
        for check in exercise.checks:
            exec(source(check), space)
    return printed.getvalue()


@every_taught
def test_there_are_enough_exercises(chapter):
    exercises = chapter.exercises()
    assert len(exercises) >= 4
    assert {e.title for e in exercises} == set(wrong_answers(chapter))
    assert "progress()" in "\n".join(source(c) for c in chapter.code)


@every_exercise
def test_an_exercise_has_a_folded_solution_and_a_check(chapter, exercise, monkeypatch):
    assert exercise.solution and exercise.checks
    assert {"exercise", "solution", "hide-cell"} <= set(tags(exercise.solution))
    text = source(exercise.solution)
    assert re.search(r"(?m)^    # BEGIN SOLUTION$", text) and "    # END SOLUTION" in text
    assert f'"{exercise.title}"' in "".join(source(c) for c in exercise.checks)
    monkeypatch.setenv("OFFRL_STRICT", "1")
    assert answer(chapter, exercise, text).strip() == f"✓ {exercise.title}"


@every_exercise
def test_an_unsolved_exercise_prints_a_hint_and_fails_only_when_strict(
    chapter, exercise, monkeypatch
):
    stub = re.sub(
        r"(?ms)^( *)# BEGIN SOLUTION\n.*?# END SOLUTION",
        r"\1raise NotImplementedError",
        source(exercise.solution),
    )
    monkeypatch.delenv("OFFRL_STRICT", raising=False)
    assert "not answered yet" in answer(chapter, exercise, stub)
    monkeypatch.setenv("OFFRL_STRICT", "1")
    with pytest.raises(AssertionError, match="not answered yet"):
        answer(chapter, exercise, stub)


@every_exercise
def test_a_check_rejects_plausible_wrong_answers(chapter, exercise, monkeypatch):
    wrong = wrong_answers(chapter)[exercise.title]
    assert len(wrong) >= 2
    monkeypatch.setenv("OFFRL_STRICT", "1")
    for code in wrong:
        with pytest.raises(AssertionError, match="✗"):
            answer(chapter, exercise, code)
