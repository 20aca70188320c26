"""The package stays tiny: the four limits of what a reader has to hold in the head."""

import ast
import graphlib
from collections import defaultdict

from notebooks import ROOT, chapters, lines_of_code, source, tags

PACKAGE = ROOT / "offrl_nb"
MODULES = {path.stem: path.read_text() for path in sorted(PACKAGE.glob("*.py"))}
# What Gymnasium finds by name: the stored logs name their environments so.
ENTRY_POINTS = {
    f"{kind}{world}" for kind in ("", "Single") for world in ("StitchMaze", "Fog", "WindyGrid")
}
# What every chapter of the lesson form uses. Until three chapters have that form, three cannot import it.
LESSONS = [chapter.slug for chapter in chapters() if chapter.about.get("form") == "lesson"]
FOR_LESSONS = {"slider", "METHOD_COLOURS", "trials"} if len(LESSONS) < 3 else set()


def imported(text: str, prefix: str = "offrl_nb") -> list[tuple[str, str]]:
    """(module, name) of everything that a text imports from the package, without its methods."""
    nodes = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.ImportFrom)]
    ours = [n for n in nodes if n.module and f"{n.module}.".startswith(f"{prefix}.")]
    return [(n.module, a.name) for n in ours if "methods" not in n.module for a in n.names]


def in_cells(chapter, tag=None) -> set[str]:
    """Names that a chapter's cells import from the package."""
    cells = [c for c in chapter.code if tag is None or tag in tags(c)]
    pairs = [pair for c in cells if "setup" not in tags(c) for pair in imported(source(c))]
    return {name for _, name in pairs}


def test_the_package_is_at_most_900_lines_of_code():
    """Besides `fast`, which says nothing new: the same numbers sooner, equal by test."""
    lines = {name: lines_of_code(text) for name, text in MODULES.items()}
    assert lines["fast"] <= 60, f"fast.py has {lines['fast']} lines of code, more than 60."
    total = sum(lines.values()) - lines["fast"]
    assert total <= 900, (
        f"{total} lines of code, more than 900; print what a chapter explains in it: {lines}"
    )


def test_method_cells_use_at_most_20_of_its_names():
    names = set().union(*(in_cells(chapter, "method") for chapter in chapters()))
    assert len(names) <= 20, f"Method cells use {len(names)} names, more than 20: {sorted(names)}."


def test_a_name_that_chapters_import_is_imported_by_three():
    users = defaultdict(set)
    for chapter in chapters():
        for name in in_cells(chapter):
            users[name].add(chapter.slug)
    rare = {
        name: sorted(slugs)
        for name, slugs in users.items()
        if len(slugs) < 3 and name not in FOR_LESSONS
    }
    assert not rare, f"Print these in the chapters that use them, or do without: {rare}"


def test_a_public_name_is_used_outside_its_module():
    """By chapters or, for what they never name, by the rest of the package and the scripts."""
    scripts = [
        p.read_text()
        for folder in ("scripts", "data", "benchmarks")
        for p in (ROOT / folder).glob("*.py")
    ]
    methods = [p.read_text() for p in (PACKAGE / "methods").glob("*.py")]
    used = {name for text in [*MODULES.values(), *scripts, *methods] for _, name in imported(text)}
    used |= set().union(*(in_cells(chapter) for chapter in chapters()))
    for module, text in MODULES.items():
        public = {name for name in defined(text) if not name.startswith("_")}
        dead = public - used - ENTRY_POINTS - FOR_LESSONS - own(text)
        assert not dead or module == "__main__", (
            f"offrl_nb.{module}: nobody imports {sorted(dead)}."
        )


def defined(text: str) -> set[str]:
    """Names that a module defines: functions, classes, constants."""
    names = set()
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {
                n.id for target in node.targets for n in ast.walk(target) if isinstance(n, ast.Name)
            }
    return names


def own(text: str) -> set[str]:
    """Constants, and classes that a module returns: used inside of it."""
    loaded = [
        n.id
        for n in ast.walk(ast.parse(text))
        if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)
    ]
    return set(loaded)


def test_no_module_imports_another_in_a_circle():
    graph = {}
    for module, text in MODULES.items():
        if module != "__init__":
            needed = {
                path.removeprefix("offrl_nb").strip(".") or name for path, name in imported(text)
            }
            graph[module] = {name.split(".")[0] for name in needed} & MODULES.keys()
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        raise AssertionError(f"Imports go in a circle: {' -> '.join(error.args[1])}.") from None


def test_no_function_is_long_and_no_class_inherits_from_ours():
    for module, text in MODULES.items():
        nodes = list(ast.walk(ast.parse(text)))
        classes = {node.name for node in nodes if isinstance(node, ast.ClassDef)}
        for node in nodes:
            if isinstance(node, ast.FunctionDef):
                size = lines_of_code(ast.get_source_segment(text, node))
                assert size <= 40, f"{module}.{node.name} has {size} lines of code, more than 40."
            if isinstance(node, ast.ClassDef):
                bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
                assert not bases & classes, f"{module}.{node.name} inherits from {bases & classes}."
