"""The contract that every chapter of _toc.yml keeps; what it holds follows from the chapter's `kind`."""

import ast
import contextlib
import io
import re
import runpy
import subprocess
import sys

import pytest
import yaml
from notebooks import OPEN, ROOT, Chapter, chapters, lines_of_code, source, tags, used_imports

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
IMAGE_ALT = re.compile(r'<img\b[^>]*?\balt="([^"]*)"')
# A chapter of the form `lesson` has what a reader may leave out behind its experiment.
LESSON = (
    *("fails", "idea", "derivation", "code", "experiment", "what we learned", "going deeper"),
    *("known", *ANATOMY[6:]),
)


def test_there_are_chapters_and_each_says_its_kind():
    assert METHODS
    for chapter in ALL:
        kind = chapter.about.get("kind")
        assert kind in ("method", "story", "page"), (
            f"{chapter.slug}: metadata offrl.kind is {kind!r}."
        )


# Every chapter


@every
def test_executed_once_from_top_to_bottom(chapter):
    counts = [cell["execution_count"] for cell in chapter.code]
    assert counts == list(range(1, len(counts) + 1)), f"run `make execute CH={chapter.slug}`"


@every
def test_outputs_are_clean(chapter):
    for cell in chapter.code:
        where = f"the cell that begins with {source(cell).splitlines()[0]!r}"
        kept = {"execution", "collapsed", "ExecuteTime"} & cell["metadata"].keys()
        assert not kept, f"{where} stores {kept}; take them out of its metadata."
        for output in cell["outputs"]:
            assert output["output_type"] != "error", f"{where} stores an error."
            assert output.get("name") != "stderr", f"{where} stores a warning; mend its cause."
            text = "".join(output.get("text", "")) + str(
                output.get("data", {}).get("text/plain", "")
            )
            assert "\r" not in text, f"{where} stores a progress bar; run `make execute`."
            assert len(text) < 6000, (
                f"{where} prints {len(text)} characters; print less than 6,000."
            )
            judged = "not judged" not in text and "✗" not in text
            assert judged, (
                f"{where} was stored at another size; run `make execute CH={chapter.slug}`."
            )
    path = re.search(r"(/home/|/root/|/tmp/|/work/|/Users/|C:\\\\)[^\s\"]*", chapter.text)
    assert not path, f"{chapter.slug} stores the path {path[0]!r} of a machine."
    size = chapter.path.stat().st_size
    assert size < 2_000_000, f"{chapter.slug} has {size:,} bytes; keep a notebook below 2,000,000."
    assert len({cell["id"] for cell in chapter.cells}) == len(chapter.cells), (
        "two cells share an id"
    )


@every
def test_figures_have_alternative_text(chapter):
    """In the cell's metadata; a figure with a knob says it in its own HTML."""
    for cell in chapter.code:
        alt = cell["metadata"].get("mystnb", {}).get("image", {}).get("alt", "")
        for data in (output.get("data", {}) for output in cell["outputs"]):
            said = IMAGE_ALT.findall("".join(data.get("text/html", ""))) or [alt]
            begins = source(cell).splitlines()[0]
            assert "image/png" not in data or min(map(len, said)) > 40, (
                f"The figure of {begins!r} needs alt text: mystnb.image.alt in its metadata, or "
                "`alt` of `slider`."
            )


@every
def test_reads_the_same_on_the_site_on_github_and_in_colab(chapter):
    assert not re.search(r"(?m)^```\{", chapter.prose), "use colon fences"
    assert "{glue" not in chapter.prose, "print the number in a cell instead of {glue}"
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    macros = config["sphinx"]["config"]["mathjax3_config"]["tex"]["macros"]
    for macro in macros:  # only our site knows them
        assert not re.search(rf"\\{macro}(?![A-Za-z])", chapter.prose), f"write \\{macro} out"
    titles = chapter.prose.count("\n# ") + chapter.prose.startswith("# ")
    assert titles == 1, (
        f"{chapter.slug} has {titles} titles (lines that begin with '# '); one is right."
    )
    setup, model = chapter.code[0], source(ALL[0].code[0])
    assert {"setup", "hide-input"} <= set(tags(setup)), (
        "the first code cell is tagged setup, hide-input"
    )
    assert source(setup) == model, "copy the setup cell of another chapter, letter by letter"


@every
def test_every_column_of_a_table_has_a_name(chapter):
    """An empty header is read out as nothing by a screen reader."""
    for header in re.findall(r"(?m)^\|(.*)\|\n\|[-:| ]+\|$", chapter.prose):
        named = all(name.strip() for name in re.split(r"(?<!\\)\|", header))
        assert named, f"Name every column of the table |{header}|."


@every
def test_cells_are_short(chapter):
    sizes = {source(c): sum(bool(x.strip()) for x in source(c).splitlines()) for c in chapter.code}
    longest = max(sizes, key=sizes.get)
    begins = longest.splitlines()[0]
    assert sizes[longest] <= 45, f"The cell {begins!r} has {sizes[longest]} lines; 45 at most."
    median = sorted(sizes.values())[len(sizes) // 2]
    assert median <= 14, f"The median cell of {chapter.slug} has {median} lines; 14 at most."


# Chapters that teach: methods and stories


@every_method
def test_anatomy(chapter):
    anatomy = LESSON if chapter.about.get("form") == "lesson" else ANATOMY
    headings = [line.lower() for line in re.findall(r"(?m)^##+ (.*)$", chapter.prose)]
    places = {part: [i for i, x in enumerate(headings) if part in x] for part in anatomy}
    missing = [part for part, at in places.items() if not at]
    assert not missing, f"No heading of {chapter.slug} contains {', '.join(map(repr, missing))}."
    order = sorted(anatomy, key=lambda part: places[part][0])
    assert order == list(anatomy), f"The headings of {chapter.slug} stand in the order {order}."
    assert "Implementation choices" in chapter.prose, (
        "a table or list of Implementation choices is missing"
    )
    length = sum(lines_of_code(source(cell)) for cell in chapter.tagged("method"))
    assert 30 <= length <= 200, (
        f"The method cells of {chapter.slug} have {length} lines; 30 to 200 are right."
    )


@every_taught
def test_claims(chapter):
    text = "\n".join(source(cell) for cell in chapter.code)
    calls = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "claim"
    ]
    enough = 3 if chapter in METHODS else 6
    assert len(calls) >= enough, (
        f"{chapter.slug} has {len(calls)} claims; at least {enough} are right."
    )
    for call in calls:
        assert len(call.args) >= 3, f"a claim without its numbers: {ast.unparse(call)}"
        assert not isinstance(call.args[1], ast.Constant), "a claim that cannot be false"
    seeds = len(re.findall(r"(?m)^SEEDS = range\(5\)$", text))
    assert seeds == 1, f"{chapter.slug} has {seeds} lines `SEEDS = range(5)`; one is right."


@pytest.mark.parametrize("script", ["methods", "assignments", "colab", "outputs"])
def test_what_is_generated_from_chapters_is_current(script):
    command = [sys.executable, f"scripts/{script}.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@every_taught
def test_method_cells_lean_on_nothing_else(chapter):
    code = "\n\n".join(source(cell) for cell in chapter.tagged("method"))
    gathered = "\n".join(source(cell) for cell in chapter.tagged("imports"))
    code = used_imports(gathered, code) + code
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
    titles = {exercise.title for exercise in chapter.exercises()}
    assert len(titles) >= 4, f"{chapter.slug} has {len(titles)} exercises; at least 4 are right."
    apart = titles ^ set(wrong_answers(chapter))
    assert not apart, f"tests/wrong_answers/{chapter.slug}.py and the chapter differ in {apart}."
    if chapter.about.get("form") == "lesson":
        assert f"{{exercise}} {OPEN}\n" in chapter.prose, f"{chapter.slug} has no open question."
    code = "\n".join(source(c) for c in chapter.code)
    assert "progress()" in code, f"{chapter.slug} ends its exercises without a cell `progress()`."


@every_exercise
def test_an_exercise_has_a_folded_solution_and_a_check(chapter, exercise, monkeypatch):
    assert exercise.solution, "after its text comes one cell tagged exercise, solution, hide-cell"
    assert exercise.checks, "after its solution comes a cell tagged check"
    has = set(tags(exercise.solution))
    assert {"exercise", "solution", "hide-cell"} <= has, f"the solution is tagged {has}"
    folded = all("hide-input" in tags(check) for check in exercise.checks)
    assert folded, "a check is tagged hide-input too: its code would give the answer away"
    text = source(exercise.solution)
    marked = re.search(r"(?m)^    # BEGIN SOLUTION$", text) and "    # END SOLUTION" in text
    assert marked, "a solution stands between `    # BEGIN SOLUTION` and `    # END SOLUTION`"
    named = f'"{exercise.title}"' in "".join(source(c) for c in exercise.checks)
    assert named, f"a check calls check({exercise.title!r}, ...)"
    monkeypatch.setenv("OFFRL_STRICT", "1")
    assert answer(chapter, exercise, text).strip() == f"✓ {exercise.title}"


@every_exercise
def test_a_check_rejects_plausible_wrong_answers(chapter, exercise, monkeypatch):
    wrong = wrong_answers(chapter)[exercise.title]
    assert len(wrong) >= 2, (
        f"give at least two wrong answers in tests/wrong_answers/{chapter.slug}.py"
    )
    monkeypatch.setenv("OFFRL_STRICT", "1")
    for code in wrong:
        with pytest.raises(AssertionError, match="✗"):
            answer(chapter, exercise, code)
