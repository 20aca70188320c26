"""The cheat sheet has a card for every method, the glossary answers to the words that readers search with, and
what the two pages link to is there.
"""

import importlib
import json
import pkgutil
import re
from pathlib import Path

import pytest
from sphinx.search.en import SearchEnglish

from offrl_nb import methods

ROOT = Path(__file__).parents[1]
CHAPTERS = ROOT / "chapters"
SEARCH_INDEX = ROOT / "_build" / "html" / "searchindex.js"
PAGES = ["cheat_sheet", "glossary"]
LINES = ["Problem", "Idea", "Loss", "Knob", "Use", "Avoid"]  # of a card, in this order
CARD = re.compile(r"^:::\{card\} \[.+?\]\((\w+)\.ipynb\).*?^:::$", re.MULTILINE | re.DOTALL)
METHODS = [
    module.name
    for module in pkgutil.iter_modules(methods.__path__)
    if hasattr(importlib.import_module(f"offrl_nb.methods.{module.name}"), "train")
]


def page(name: str) -> str:
    return (CHAPTERS / f"{name}.md").read_text()


def cards() -> list[tuple[str, str]]:
    """Pairs of the chapter that a card links to and the card's text."""
    return [(card[1], card[0]) for card in CARD.finditer(page("cheat_sheet"))]


def entries() -> dict[str, str]:
    """The glossary: term -> what stands under it."""
    found = {}
    for block in re.findall(r"^:::\{glossary\}\n(.*?)^:::$", page("glossary"), re.M | re.S):
        for entry in block.strip().split("\n\n"):
            term, _, text = entry.partition("\n")
            assert term not in found, f"{term} is explained twice"
            found[term] = text
    return found


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_a_card(method):
    chapters = [chapter for chapter, _ in cards()]
    assert method in chapters, f"give {method} a card in chapters/cheat_sheet.md"


@pytest.mark.parametrize(("chapter", "card"), cards())
def test_a_card_is_complete_and_names_real_settings(chapter, card):
    assert re.findall(r"^- \*\*(\w+)", card, re.MULTILINE) == LINES
    knob = re.search(r"^- \*\*Knob.*?(?=^- )", card, re.MULTILINE | re.DOTALL)[0]
    config = importlib.import_module(f"offrl_nb.methods.{chapter}").Config
    for setting in re.findall(r"`(\w+)`", knob):
        assert hasattr(config(), setting), f"{chapter}.Config has no {setting}"


@pytest.mark.parametrize("name", PAGES)
def test_logs_and_links_exist(name):
    text = page(name)
    links = re.findall(r"\]\(([^)#]+)", text)
    assert links
    for link in links:
        assert (CHAPTERS / link).is_file(), f"{name} links to {link}, which is not there"
    for log in re.findall(r"`(\w+/[\w-]+)`", text):
        assert (ROOT / "data" / f"{log}-v0").is_dir(), f"{name} names {log}, which is not shipped"


def test_every_entry_leads_to_a_page():
    found = entries()
    assert len(found) >= 80
    for term, text in found.items():
        assert re.search(r"\]\(\w+\.(ipynb|md)\)", text), f"{term} leads nowhere"


def test_terms_stand_in_order():
    terms = [re.sub(r"[^a-z0-9]", "", term.lower()) for term in entries() if term != "%BC"]
    assert terms == sorted(terms)


@pytest.mark.parametrize(
    "query",
    [
        "behavior cloning",
        "imitation learning",
        "OPE",
        "off-policy evaluation",
        "offline evaluation",
        "batch RL",
        "logging policy",
        "normalized score",
        "replay buffer",
    ],
)
def test_search_finds_the_glossary(query):
    if not SEARCH_INDEX.exists():
        pytest.skip("There is no built site; `make book` builds one.")
    index = json.loads(SEARCH_INDEX.read_text().removeprefix("Search.setIndex(").rstrip(";)\n"))
    assert "chapters/glossary" in index["docnames"], (
        "the site is older than the glossary: make book"
    )
    glossary = index["docnames"].index("chapters/glossary")
    stem = SearchEnglish({}).stem
    for word in re.findall(r"\w+", query.lower()):
        hits = index["terms"].get(stem(word), [])
        assert glossary in (hits if isinstance(hits, list) else [hits]), f"{word} is not found"
