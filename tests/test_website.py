"""The built website in a real browser: every page opens without an error, reads well on a phone, on paper and
with a screen reader (as far as axe-core can tell), and leads to its notebooks.

Each page is opened once at each size; the tests read what that visit has seen. Needs `_build/html` (make
book) and Chromium or Chrome. Without a browser the tests are skipped, and fail where CI is set, so that they
cannot vanish unnoticed.
"""

import base64
import functools
import hashlib
import http.server
import io
import itertools
import json
import os
import re
import shutil
import struct
import sys
import threading
import urllib.request
import zipfile
from html import escape
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pandas as pd
import pytest
import yaml
from docutils import nodes
from docutils.utils import new_document
from notebooks import ROOT
from PIL import Image
from pybtex.database import parse_string
from sphinx.errors import ExtensionError

sys.path.insert(0, str(ROOT / "_ext"))
import offrl_site

HTML = ROOT / "_build" / "html"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MAC_BROWSER = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
PAPER = {"width": 718, "height": 1000}  # A4 within its margins
COLUMNS = 96  # of code, that a desktop shows without scrolling (chapters/ruff.toml)


def toc_pages() -> list[str]:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    return [toc["root"], *(c["file"] for part in toc["parts"] for c in part["chapters"])]


PAGES = toc_pages()
NOTEBOOKS = [page for page in PAGES if (ROOT / f"{page}.ipynb").exists()]
AXE = ROOT / "tests" / "vendor" / "axe.min.js"


def each(pages):
    """A test for each page; all tests of a page run in one process, which opens it once."""
    return pytest.mark.parametrize(
        "page", [pytest.param(page, marks=pytest.mark.xdist_group(page)) for page in pages]
    )


def source(page: str) -> str:
    """The text of a page as written: Markdown, without code and its outputs."""
    notebook = ROOT / f"{page}.ipynb"
    if notebook.exists():
        cells = json.loads(notebook.read_text())["cells"]
        text = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    else:
        text = (ROOT / f"{page}.md").read_text()
    return re.sub(r"(?s)```.*?```|`[^`\n]*`", "", text)


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def site():
    """Address of the built site, served from a thread."""
    if not (HTML / "index.html").exists():
        pytest.fail("There is no built site; run make book first.")
    handler = functools.partial(Handler, directory=str(HTML))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None and Path(MAC_BROWSER).exists():
        path = MAC_BROWSER
    if path is None:
        message = "Chromium or Chrome is missing, so the website was not opened."
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=QUIET)
        yield chromium
        chromium.close()


class Visit:
    """A page opened in a fresh context, with everything that went wrong on the way."""

    def __init__(self, browser, site, viewport=DESKTOP):
        self.site, self.problems, self.requests = site, [], []
        self.context = browser.new_context(viewport=viewport)
        self.context.route("**/*", self._route)
        self.page = self.context.new_page()
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.problems.append(f"script error: {error}"))
        self.page.on("requestfailed", lambda r: self.problems.append(f"failed request: {r.url}"))
        self.page.on("response", self._response)

    def _route(self, route):
        self.requests.append(route.request.url)
        if route.request.url.startswith((self.site, "data:", "blob:")):
            route.continue_()
        else:
            self.problems.append(f"request to another host: {route.request.url}")
            route.abort()

    def _console(self, message):
        if message.type == "error":
            self.problems.append(f"console: {message.text}")

    def _response(self, response):
        if response.status >= 400:
            self.problems.append(f"{response.status}: {response.url}")

    def open(self, path):
        self.page.goto(f"{self.site}/{path}", wait_until="load")
        # formulas are typeset once a reader moves, when they come near; printing wants them all
        self.page.evaluate("() => dispatchEvent(new Event('scroll'))")
        self.page.wait_for_function(
            "() => !document.querySelector('.math') || window.MathJax?.startup?.promise"
        )
        self.page.evaluate(
            "() => window.MathJax?.startup?.promise?.then(() => dispatchEvent(new Event('beforeprint')))"
        )
        self.page.wait_for_function("() => !document.querySelector('mjx-lazy')")
        return self

    def look(self, script, *argument):
        return self.page.evaluate(script, *argument)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.context.close()


@pytest.fixture
def visit(browser, site):
    return functools.partial(Visit, browser, site)


# What scripts find in a page. First: what a reader would see of a formula that was not typeset.
RAW_TEX = r"""() => {
  const copy = (document.querySelector("article") || document.body).cloneNode(true);
  copy.querySelectorAll("pre, code, script, style, mjx-container").forEach(e => e.remove());
  return copy.textContent.match(/\$\$|\\\(|\\\[|\\[a-zA-Z]{2,}\b|\{[a-z:]+\}`/g) || [];
}"""
BAD_MATHS = """() => [...document.querySelectorAll(
  "mjx-merror, mjx-mtext[style*='red'], mjx-container [data-mjx-error]")].map(e => e.textContent)"""
NO_ALT = """() => [...document.querySelectorAll("article img")]
  .filter(i => !(i.getAttribute("alt") || "").trim() || /^(\\.\\.\\/)*_images/.test(i.getAttribute("alt")))
  .map(i => i.src)"""
BROKEN_IMAGES = """() => [...document.querySelectorAll("article img")]
  .filter(i => i.complete && i.naturalWidth === 0).map(i => i.src)"""
HEADINGS = """() => [...document.querySelectorAll("article h1, article h2, article h3, article h4")]
  .filter(h => h.textContent.trim()).map(h => Number(h.tagName[1]))"""
# Elements that stick out of the window and are not inside a box that scrolls by itself.
STICKING_OUT = """() => {
  const width = document.documentElement.clientWidth, out = [];
  if (document.documentElement.scrollWidth <= width) return out;
  for (const e of document.querySelectorAll("article *"))
    if (e.getBoundingClientRect().right > width + 1) out.push(e.tagName + "." + e.className);
  return out.concat("page is " + document.documentElement.scrollWidth + " wide").slice(-5);
}"""
# Columns that the cells of a page have room for: the narrowest of those that stand in the text itself.
ROOM_FOR_CODE = """() => {
  const rooms = [...document.querySelectorAll("article .cell_input pre")]
    .filter(pre => pre.checkVisibility() && !pre.closest(".admonition")).map(pre => {
      const probe = Object.assign(document.createElement("span"), {textContent: "m".repeat(100)});
      pre.append(probe);
      const style = getComputedStyle(pre), wide = probe.getBoundingClientRect().width / 100;
      probe.remove();
      return (pre.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight)) / wide;
    });
  return rooms.length ? Math.floor(Math.min(...rooms)) : null;
}"""
LINKS = "selector => [...document.querySelectorAll(selector)].map(a => a.href)"
TEXTS = "selector => [...document.querySelectorAll(selector)].map(e => e.textContent.trim())"
CONTENTS = "selector => [...document.querySelectorAll(selector)].map(m => m.content)"
SHOWN = """selector => [...document.querySelectorAll(selector)]
  .filter(e => e.checkVisibility() && e.getBoundingClientRect().height > 0).map(e => e.className || e.tagName)"""
CUT_CODE = """() => [...document.querySelectorAll("article pre")]
  .filter(e => e.checkVisibility() && e.scrollWidth > e.clientWidth + 1).map(e => e.textContent.slice(0, 200))"""
ON_SCREEN_ONLY = (
    ".bd-sidebar-primary, .bd-sidebar-secondary, .bd-header-article, .launch-line, .prev-next-footer, "
    "article button, article details.hide > summary"
)

# Everything that axe-core holds for an error; folded cells are opened, so that it sees them.
OPEN_FOLDS = """async () => {
  document.querySelectorAll("details").forEach(d => d.open = true);
  await new Promise(done => setTimeout(done, 450));  // the theme looks anew for what scrolls
}"""
# Listings hold thousands of coloured words. One word of each class in each kind of listing keeps its colour;
# the others become plain text, and with them most of what axe would look at twice.
ONE_WORD_OF_EACH_COLOUR = """() => {
  const seen = new Set();
  for (const word of document.querySelectorAll(".highlight pre span:not(:has(span))")) {
    const kind = word.closest("div[class*='highlight-']")?.className + " / " + word.className;
    if (seen.has(kind)) word.replaceWith(word.textContent); else seen.add(kind);
  }
}"""
NO_COLOURED_WORDS = """() => document.querySelectorAll(".highlight pre").forEach(
  pre => { pre.textContent = pre.textContent })"""
FAULTS = """async rules => {
  const tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
  const runOnly = rules.length ? {type: "rule", values: rules} : {type: "tag", values: tags};
  const found = await axe.run({runOnly, resultTypes: ["violations"]});
  return found.violations.flatMap(v => v.nodes.map(n => v.id + ": " + n.target + " " + n.html.slice(0, 120)));
}"""
STILL = "() => document.head.append(Object.assign(document.createElement('style'), {textContent: '* {transition: none !important}'}))"


def turn(v, theme):
    """Another theme, at once: colours half-way are nobody's fault."""
    v.look(STILL)
    v.look(f"() => {{ document.documentElement.dataset.theme = '{theme}' }}")


COLOURS = ["color-contrast", "link-in-text-block"]  # all that another theme can change


def on_a_desktop(v):
    """Everything that the tests want to know of a page on a desktop, and then on paper."""
    seen = SimpleNamespace(
        problems=v.problems,
        fonts=[url for url in v.requests if re.search(r"\.(woff2?|ttf)\b", url)],
        levels=v.look(HEADINGS),
        language=v.look("() => document.documentElement.lang"),
        raw_tex=v.look(RAW_TEX),
        bad_maths=v.look(BAD_MATHS),
        formulas=v.look("() => document.querySelectorAll('article mjx-container').length"),
        no_alt=v.look(NO_ALT),
        broken_images=v.look(BROKEN_IMAGES),
        room_for_code=v.look(ROOM_FOR_CODE),
        links=v.look(LINKS, "article a[href]"),
        launch=v.look(LINKS, "h1 + .launch-line a"),
        colab=v.look(LINKS, "a[href*='colab.research']"),
        description=v.look(CONTENTS, "meta[name=description]"),
        title=v.look(CONTENTS, "meta[property='og:title']"),
        navigation=v.look(TEXTS, ".bd-sidenav .toctree-l1 > a"),
        footer=v.look("() => document.querySelector('.bd-footer-content').innerText"),
        on_screen=v.look(SHOWN, ON_SCREEN_ONLY),
    )
    v.page.emulate_media(media="print")
    v.page.set_viewport_size(PAPER)
    seen.left_on_paper = v.look(SHOWN, ON_SCREEN_ONLY)
    seen.text_on_paper = v.look(SHOWN, "article p")
    seen.open_on_paper = v.look(
        "() => document.querySelectorAll('article details.hide[open]').length"
    )
    seen.cut_on_paper = v.look(CUT_CODE)
    v.page.emulate_media(media="screen")
    v.page.set_viewport_size(DESKTOP)
    seen.closed_folds = closed_folds(v)
    v.look(OPEN_FOLDS)
    v.page.add_script_tag(content=AXE.read_text())
    v.look(ONE_WORD_OF_EACH_COLOUR)
    seen.faults = {"light": v.look(FAULTS, [])}
    turn(v, "dark")
    seen.faults["dark"] = v.look(FAULTS, COLOURS)
    return seen


def closed_folds(v):
    """Those of the first three folded cells that a click does not open."""
    shut, folds = [], v.page.locator("article details.hide")
    for k in range(min(folds.count(), 3)):
        fold = folds.nth(k)
        was_open = fold.evaluate("d => d.open")
        fold.locator("summary").click()
        if was_open or not fold.evaluate("d => d.open && d.scrollHeight > 40"):
            shut.append(k)
    return shut


def on_a_phone(v):
    seen = SimpleNamespace(problems=v.problems, sticking_out=v.look(STICKING_OUT), faults={})
    v.look(OPEN_FOLDS)
    v.page.add_script_tag(content=AXE.read_text())
    v.look(NO_COLOURED_WORDS)
    for theme, rules in (("light", []), ("dark", COLOURS)):
        turn(v, theme)
        seen.faults[theme] = v.look(FAULTS, rules)
    return seen


@pytest.fixture(scope="module")
def desktop(browser, site):
    return once(on_a_desktop, browser, site, DESKTOP)


@pytest.fixture(scope="module")
def phone(browser, site):
    return once(on_a_phone, browser, site, PHONE)


def once(note, browser, site, size):
    """A function page -> what was noted there, which opens a page the first time it is asked for."""

    @functools.cache
    def seen(page):
        with Visit(browser, site, size) as v:
            return note(v.open(f"{page}.html"))

    return seen


@each(PAGES)
def test_page_on_a_desktop(desktop, page):
    seen = desktop(page)
    assert seen.problems == []
    assert seen.levels.count(1) == 1, "a page has one title"
    jumps = [b - a for a, b in itertools.pairwise(seen.levels)]
    assert max(jumps, default=0) <= 1, "headings skip a level"
    assert seen.language == "en"
    assert seen.raw_tex == []
    assert seen.bad_maths == []
    assert seen.formulas or not re.search(r"\$[^$]+\$", source(page))
    assert seen.no_alt == [], "images need alt text"
    assert seen.broken_images == []
    assert not [url for url in seen.fonts if "mathjax" not in url], "a font for an icon"


@each(NOTEBOOKS)
def test_code_stands_within_its_column(desktop, page):
    room = desktop(page).room_for_code
    assert room is None or room >= COLUMNS, f"a cell shows {room} columns and then scrolls"


@each(PAGES)
def test_page_on_a_phone(phone, page):
    assert phone(page).problems == []
    assert phone(page).sticking_out == [], "the page scrolls sideways"


def repository() -> dict[str, str]:
    return yaml.safe_load((ROOT / "repository.yml").read_text())


def published() -> bool:
    """Whether an address is set; until then no link leads to the placeholder."""
    return "/OWNER/" not in repository()["url"]


def colab(path: str) -> str:
    where = repository()["url"].removeprefix("https://github.com/")
    return f"https://colab.research.google.com/github/{where}/blob/{repository()['tag']}/{path}"


def has_exercises(page: str) -> bool:
    cells = json.loads((ROOT / f"{page}.ipynb").read_text())["cells"]
    return any("exercise" in cell["metadata"].get("tags", []) for cell in cells)


def missing_notebooks(links: list[str]) -> list[str]:
    """Links to Colab whose notebook is not in the tree: at the next release they would lead nowhere."""
    start = colab("")
    paths = [link.removeprefix(start) for link in links if "colab.research.google.com" in link]
    return [path for path in paths if not (ROOT / path).is_file()]


def readable(page: str) -> str:
    """The notebook that "read and run" opens: the copy for Colab where there is one."""
    copy = f"colab/{page}.ipynb"
    return copy if (ROOT / copy).exists() else f"{page}.ipynb"


@each(NOTEBOOKS)
def test_a_notebook_page_leads_to_colab_and_downloads(desktop, page):
    links, own = desktop(page).launch, f"assignments/{page}.ipynb"
    assigned = [own] if has_exercises(page) else []
    in_colab = [colab(path) for path in [readable(page), *assigned]] if published() else []
    assert links[: len(in_colab)] == in_colab
    assert desktop(page).colab == in_colab, "a second button"
    assert missing_notebooks(links) == []
    downloads = zip(links[len(in_colab) :], [f"{page}.ipynb", *assigned], strict=True)
    for link, path in downloads:
        with urllib.request.urlopen(link) as answer:
            assert answer.status == 200
            assert answer.read() == (ROOT / path).read_bytes(), f"{link} is not {path}"


@pytest.mark.parametrize("page", [*PAGES, "search", "404"])
def test_no_link_leads_to_a_placeholder(page):
    found = re.findall(
        r'(?:href|src|content)="([^"]*OWNER[^"]*)', (HTML / f"{page}.html").read_text()
    )
    assert found == []


@pytest.mark.xdist_group("chapters/using_this_book")
def test_all_assignments_come_as_one_archive(desktop, site):
    links = desktop("chapters/using_this_book").links
    assert [link for link in links if link.endswith("assignments.zip")] == [
        f"{site}/assignments.zip"
    ]
    with zipfile.ZipFile(HTML / "assignments.zip") as archive:
        names = {entry.filename: entry.date_time for entry in archive.infolist()}
        notebooks = sorted(
            path.name for path in (ROOT / "assignments" / "chapters").glob("*.ipynb")
        )
        assert set(names) == {f"assignments/{name}" for name in ["README.txt", *notebooks]}
        assert set(names.values()) == {(1980, 1, 1, 0, 0, 0)}, "two builds give the same archive"


@each([*PAGES, "search"])
def test_every_page_describes_itself(desktop, page):
    seen = desktop(page)
    (text,) = seen.description
    assert 50 <= len(text) <= 160, text
    others = [p for p in [*PAGES, "search"] if p != page]
    same = [p for p in others if escape(text) in (HTML / f"{p}.html").read_text()[:20_000]]
    assert not same, f"{page} and {same} say the same"
    assert page == "search" or seen.title[0]
    assert "No cookies" in seen.footer


@each([*PAGES, "search"])
def test_page_is_accessible(desktop, phone, page):
    assert desktop(page).faults == {"light": [], "dark": []}
    assert phone(page).faults == {"light": [], "dark": []}


@each(PAGES)
def test_page_on_paper(desktop, page):
    seen = desktop(page)
    assert seen.on_screen != []
    assert seen.left_on_paper == []
    assert seen.text_on_paper != []
    assert seen.open_on_paper == 0
    assert seen.cut_on_paper == [], "code is cut off"


@each(PAGES)
def test_folded_cells_open(desktop, page):
    assert desktop(page).closed_folds == []
    assert desktop(page).problems == []


@each(PAGES)
def test_links_inside_the_book_lead_somewhere(desktop, site, page):
    for link in desktop(page).links:
        if link.startswith(site):
            path, _, anchor = link.removeprefix(f"{site}/").partition("#")
            target = HTML / (path or "index.html")
            assert target.is_file(), f"{page} links to {path}, which is not there"
            assert not anchor or f'id="{anchor}"' in target.read_text(), f"{page}: #{anchor}"


def toc_chapters() -> list[str]:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    return [c["file"] for part in toc["parts"] if part.get("numbered") for c in part["chapters"]]


@pytest.mark.xdist_group("index")
def test_the_landing_page_leads_on(visit, site):
    chapters = [f"{site}/{page}.html" for page in toc_chapters()]
    with visit() as v:
        v.open("index.html")
        assert v.look(LINKS, "a.start") == [chapters[0]], "the start is the first chapter"
        rows = v.look(LINKS, ".method-map li > p > strong > a, .method-map li > strong > a")
        assert set(chapters) <= set(rows), "a chapter is not on the map"
        assert len(rows) == v.look("() => document.querySelectorAll('.method-map li').length")
        cards = v.look("() => document.querySelectorAll('.sd-card').length")
        assert cards == len(v.look(LINKS, ".sd-card a.sd-stretched-link")) == 3
        clone = f"git clone {repository()['url']} "
        assert (clone in v.look("() => document.body.innerText")) == published()


@pytest.mark.xdist_group("index")
def test_the_navigation_needs_no_acronyms(desktop):
    titles = [re.sub(r"^\d+\. ", "", title) for title in desktop("index").navigation]
    assert len(titles) == len(PAGES)
    alone = [title for title in titles if re.fullmatch(r"\w*[A-Z]\w*[A-Z]\S*", title)]
    assert alone == [], "give it a title in _toc.yml, with the name written out"


def test_the_readme_lists_every_chapter():
    linked = re.findall(r"\]\((chapters/\w+)\.ipynb\) \| \S", (ROOT / "README.md").read_text())
    assert linked == toc_chapters()


def test_a_wrong_address_shows_a_page_at_any_depth(visit):
    root = f"/{repository()['url'].split('/')[-1]}/" if published() else "/"
    text = (HTML / "404.html").read_text()
    links = re.findall(r'(?:href|src|action)="([^"]+)"', text)
    inside = [link for link in links if not re.match(r"#|\w+:", link)]
    for link in inside:
        path = re.sub(r"[?#].*", "", link)
        assert path.startswith(root) and (HTML / path.removeprefix(root)).is_file(), link
    with visit() as v:
        deep = f"{v.site}/chapters/deep/nothing.html"
        body = text.replace(f'="{root}', '="/')
        v.page.route(deep, lambda r: r.fulfill(body=body, content_type="text/html"))
        v.open("chapters/deep/nothing.html")
        assert v.look(TEXTS, "article h1") == ["Page not found"]
        assert v.problems == []
        v.page.add_script_tag(content=AXE.read_text())
        assert v.look(FAULTS, []) == []


@pytest.mark.xdist_group("index")
def test_the_book_can_be_cited(visit):
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    with visit() as v:
        v.open("index.html")
        (text,) = v.look(TEXTS, ".highlight-bibtex pre")
    (entry,) = parse_string(text, "bibtex").entries.values()
    assert entry.fields["title"] == f"{{{cff['title']}}}"
    assert cff["version"] in entry.fields["note"]
    assert entry.fields.get("url") == (cff["url"] if published() else None)


def test_a_citation_names_people_and_the_address():
    cff = {"title": "A Book", "version": "1.0.0", "url": "https://me.github.io/book/"}
    cff["authors"] = [{"family-names": "Doe", "given-names": "Jo"}, {"name": "the others"}]
    (entry,) = parse_string(offrl_site.bibtex(cff, "2026", True), "bibtex").entries.values()
    assert [str(person) for person in entry.persons["author"]] == ["Doe, Jo", "{the others}"]
    assert entry.fields["url"] == cff["url"]
    assert "url" not in offrl_site.bibtex(cff, "2026", False)


def configured(folder, url):
    """What the extension makes of a repository.yml: a stand-in for Sphinx's application."""
    (folder / "repository.yml").write_text(f"url: {url}\ntag: v1.2.3\n")
    config = SimpleNamespace(
        html_theme_options={}, html_baseurl="", html_title="Book", offrl_colab=""
    )
    app = SimpleNamespace(confdir=folder, srcdir=folder, outdir=folder, config=config)
    offrl_site.set_addresses(app, config)
    return app


# In pieces, so that it is not itself a place where an address stands.
PLACEHOLDER, ADDRESS = (
    "https://github.com/" + "/".join(p) for p in (("OWNER", "REPO"), ("me", "book"))
)
PARAGRAPH = "A page that says enough about itself to be described in one sentence."


def section(*children):
    document = new_document("page")
    document += nodes.section("", nodes.title("", "Title"), *children)
    return document


def test_what_a_page_says_with_an_address_and_without(tmp_path):
    app, other = configured(tmp_path, ADDRESS), configured(tmp_path, PLACEHOLDER)
    doctree = section(nodes.paragraph("", PARAGRAPH))
    context = {"title": "Title", "pageurl": "https://me.github.io/book/page.html"}
    head, bare = (offrl_site.head(a, "page", dict(context), doctree) for a in (app, other))
    for text in (
        f'name="description" content="{PARAGRAPH}"',
        'property="og:title" content="Title"',
    ):
        assert text in head and text in bare
    for tag in ("og:image", "og:url", "twitter:card"):
        assert tag in head and tag not in bare
    assert "https://me.github.io/book/_static/share.png" in head
    line, short = (
        offrl_site.launch_line(a, "chapters/x", lambda path, _: path) for a in (app, other)
    )
    assert f"{offrl_site.COLAB}/me/book/blob/v1.2.3/chapters/x.ipynb" in line
    assert "Colab" not in short and "_sources/chapters/x.ipynb" in short
    assert app.config.html_theme_options["use_issues_button"]
    assert "use_issues_button" not in other.config.html_theme_options
    assert other.config.html_baseurl == ""


@pytest.mark.parametrize(("url", "left"), [(ADDRESS, "published"), (PLACEHOLDER, "unpublished")])
def test_text_that_needs_an_address_is_left_out_without_one(tmp_path, url, left):
    words = [nodes.paragraph("", word, classes=[word]) for word in ("published", "unpublished")]
    doctree = section(nodes.paragraph("", "always"), *words)
    offrl_site.choose_text(configured(tmp_path, url), doctree, "page")
    assert [p.astext() for p in doctree.findall(nodes.paragraph)] == ["always", left]


def test_a_sitemap_only_with_an_address(tmp_path):
    for url in (ADDRESS, PLACEHOLDER):
        app = configured(tmp_path, url)
        app.env = SimpleNamespace(found_docs={"index", "chapters/bc"})
        app.builder = SimpleNamespace(get_target_uri=lambda page: f"{page}.html")
        offrl_site.write_sitemap(app)
        there = tmp_path / "sitemap.xml"
        assert there.exists() == (url == ADDRESS)
        if there.exists():
            found = re.findall("<loc>(.*?)</loc>", there.read_text())
            assert found == [
                f"https://me.github.io/book/{p}.html" for p in ("chapters/bc", "index")
            ]
    assert (HTML / "sitemap.xml").exists() == published()


def test_the_picture_of_a_shared_link():
    picture = (HTML / offrl_site.SHARE).read_bytes()
    assert struct.unpack(">II", picture[16:24]) == (1200, 630)
    assert len(picture) <= 150_000


# Nothing is on the screen that needs typesetting; a formula waits below.
WAITING = """<!doctype html><html><head><meta name="mathjax" content="/_static/mathjax/tex-chtml.js">
<script defer src="/_static/site.js"></script></head><body><article><div style="height: {height}px">text</div>
<span class="math">\\(x^2\\)</span><div style="height: 3000px"></div></article></body></html>"""


@pytest.mark.parametrize(
    "move", ["wheel", "key", "pointer", "nothing, but a formula is on the screen"]
)
def test_formulas_wait_for_the_reader(visit, move):
    at_once = move.startswith("nothing")
    with visit(PHONE) as v:
        body = WAITING.format(height=100 if at_once else 3000)
        address = f"{v.site}/waiting.html"
        v.page.route(address, lambda r: r.fulfill(body=body, content_type="text/html"))
        v.page.goto(address, wait_until="load")
        if not at_once:
            v.page.wait_for_timeout(500)
            assert not [url for url in v.requests if "mathjax" in url], "nobody has moved yet"
        if move == "wheel":
            v.page.mouse.wheel(0, 200)
        elif move == "key":
            v.page.keyboard.press("Shift")
        elif move == "pointer":
            v.page.mouse.move(50, 50)
        v.page.wait_for_function("() => window.MathJax?.startup?.promise", timeout=10_000)
        assert sum("tex-chtml" in url for url in v.requests) == 1


@pytest.mark.parametrize("page", PAGES)
def test_no_page_loads_mathjax_by_itself(page):
    text = (HTML / f"{page}.html").read_text()
    assert not re.search(r"<script[^>]*tex-chtml", text)
    assert ('<meta name="mathjax"' in text) == ('class="math' in text)


def test_a_search_looks_through_prose():
    cell = nodes.container("", nodes.literal_block("", "import code"), classes=["cell_input"])
    output = nodes.container("", nodes.paragraph("", "output"), classes=["cell_output"])
    words = nodes.paragraph("", "", nodes.Text("of "), nodes.math("", r"\tau"), nodes.Text(" and "))
    words += nodes.math("", r"\frac{a}{b}")
    doctree = section(words, cell, output, nodes.math_block("", "x"), nodes.raw("", "html"))
    before = doctree.pformat()
    assert offrl_site.prose(doctree).astext().split() == ["Title", "of", "τ", "and", "…"]
    assert doctree.pformat() == before, "the page itself keeps everything"


def test_the_index_holds_no_code_and_no_tex():
    index = json.loads(
        re.fullmatch(r"(?s)Search\.setIndex\((.*)\)", (HTML / "searchindex.js").read_text())[1]
    )
    terms = set(index["terms"])
    assert {"clone", "critic"} <= terms
    assert not terms & {"importlib", "mathbb", "cdot", "subplot"}
    assert not [title for title in index["alltitles"] if "\\" in title]


SNIPPETS = """() => [...document.querySelectorAll("#search-results li")].slice(0, 8).map(
  e => [e.querySelector("a").href, e.querySelector(".context")?.textContent])"""


@pytest.mark.parametrize(
    ("words", "page"), [("cloning", "bc"), ("expectile", "iql"), ("ensemble", "mopo")]
)
def test_search_finds_a_chapter_and_quotes_its_prose(visit, words, page):
    with visit() as v:
        v.open(f"search.html?q={words}")
        v.page.wait_for_function(
            "() => [...document.querySelectorAll('#search-results li')].slice(0, 8)"
            ".filter(e => e.querySelector('.context')).length >= 2",
            timeout=10_000,
        )
        v.page.wait_for_timeout(500)
        found = v.look(SNIPPETS)
        links = v.look(LINKS, "#search-results li a")
        assert any(f"chapters/{page}.html" in link for link in links)
        for link, quote in found:
            assert not re.search(
                r"\\[a-z(\[]|^\.\.\.|  |\.ipynb|\bdef \w+\(|import \w+ as|\bself\.", quote or ""
            ), (link, quote)
        assert v.problems == []


def test_dark_mode_switches(visit):
    background = "() => getComputedStyle(document.body).backgroundColor"
    theme = "() => document.documentElement.dataset.theme"
    with visit() as v:
        v.open("index.html")
        seen = {v.look(theme): v.look(background)}
        for _ in range(2):
            v.page.locator("button.theme-switch-button:visible").first.click()
            v.page.wait_for_timeout(300)
            seen[v.look(theme)] = v.look(background)
        assert {"light", "dark"} <= set(seen) and seen["light"] != seen["dark"]


# The checks themselves are checked on a page that has every fault.
PLANTED = """<!doctype html><html><body><article><h1>A</h1><p>$$x$$ and \\(y\\)</p>
<img src="nothing.png"><div style="width: 900px">wide</div>
<p style="color: #999; background: #aaa">faint</p><table><tr><th></th><td>1</td></tr></table><button></button>
<script src="http://cdn.example/library.js"></script><script>throw new Error("planted")</script>
</article></body></html>"""


def test_planted_faults_are_seen(visit):
    with visit(PHONE) as v:
        address = f"{v.site}/planted.html"
        v.page.route(address, lambda r: r.fulfill(body=PLANTED, content_type="text/html"))
        v.open("planted.html")
        said = "\n".join(v.problems)
        assert "another host" in said and "planted" in said and "404" in said
        assert v.look(RAW_TEX) == ["$$", "$$", "\\("]
        assert v.look(NO_ALT) and v.look(BROKEN_IMAGES) and v.look(STICKING_OUT)
        v.page.add_script_tag(content=AXE.read_text())
        rules = {fault.split(":")[0] for fault in v.look(FAULTS, [])}
        assert {"color-contrast", "button-name", "image-alt", "empty-table-header"} <= rules


def test_a_link_to_a_missing_assignment_is_seen():
    there, not_there = "assignments/chapters/bc.ipynb", "assignments/chapters/unwritten.ipynb"
    assert missing_notebooks([colab(there), colab(not_there)]) == [not_there]


# What the extension makes of cells, boxes and tables


@pytest.mark.parametrize("page", [page for page in NOTEBOOKS if has_exercises(page)])
def test_a_stub_stands_above_each_folded_solution(page):
    text = (HTML / f"{page}.html").read_text()
    stubs = re.findall(r'<div class="stub[^"]*">(?s:.*?)</pre>', text)
    assert len(stubs) == text.count("tag_solution")
    for stub in (re.sub("<[^>]*>", "", stub) for stub in stubs):
        assert "# your code here" in stub and "SOLUTION" not in stub


def test_a_stub_holds_what_is_given_and_no_answer():
    code = """\
LIMIT = 3

def f(x):
    \"\"\"Twice x.\"\"\"
    # BEGIN SOLUTION
    return 2 * x
    # END SOLUTION"""
    cell = nodes.container("", nodes.literal_block(code, code), classes=["cell", "tag_solution"])
    doctree = section(cell)
    offrl_site.show_stubs(None, doctree)
    stub, solution = doctree.findall(nodes.literal_block)
    given = code.partition("    # BEGIN")[0]
    assert stub.astext() == given + "    ...  # your code here"
    assert solution.astext() == code


@pytest.mark.parametrize(
    ("tex", "shown"),
    [
        (r"V_\psi(s)", "Vψ(s)"),
        (r"\mathbb{E}_{s \sim \mathcal{D}}\,[u^2]", "𝔼s∼𝒟[u2]"),
        (r"\begin{aligned} u &= Q - V \\[2pt] a &\le \mathbb{1} \end{aligned}", "u=Q−Va≤𝟙"),
        (r"\begin{gathered} \frac{a}{b} \\ \lvert x \rvert \end{gathered}", "ab|x|"),
    ],
)
def test_formulas_of_a_box_are_made_with_the_page(tex, shown):
    box = nodes.admonition("", nodes.math_block(tex, tex), classes=["in-short"])
    doctree = section(box, nodes.math_block("y", "y"))
    offrl_site.typeset_boxes(None, doctree)
    assert [node.astext() for node in doctree.findall(nodes.math_block)] == ["y"]
    (raw,) = box.findall(nodes.raw)
    math = ElementTree.fromstring(raw.astext())
    assert "".join("".join(math.itertext()).split()) == shown
    assert len(list(math.iter("mtr"))) == (2 if "begin" in tex else 0)


@pytest.mark.parametrize("tex", [r"\foo x", "a &= b"])
def test_a_formula_that_cannot_be_made_is_named(tex):
    with pytest.raises(ExtensionError, match="cannot be made at build time"):
        offrl_site.mathml(tex, "block")


def test_columns_of_words_are_known():
    frame = pd.DataFrame(
        {"mean": ["-147", "–"], "95 %": ["-1 to 3", ""], "note": ["ok", "3 bad"]},
        index=["bc", "iql"],
    ).rename_axis("run", axis="columns")
    found = re.findall(r'class="words">(.*?)<', offrl_site.name_columns(frame.to_html()))
    assert found == ["run", "note", "bc", "ok", "iql", "3 bad"]


def test_a_caption_moves_into_its_table():
    outputs = nodes.container("", nodes.raw("", "table", format="html"), classes=["cell_output"])
    cell = nodes.container("", outputs, cell_metadata={"offrl": {"caption": "Last returns"}})
    offrl_site.take_captions(None, section(cell))
    assert outputs[0].astext() == "Last returns" and outputs[0]["classes"] == ["table-caption"]
    table = pd.DataFrame({"a": [1]}).to_html()
    found = offrl_site.caption_tables(f'<p class="table-caption">Last returns</p><div>{table}')
    assert "<caption>Last returns</caption>" in found.partition("<table")[2]
    assert "<p" not in found


def test_a_sharp_figure_is_shown_at_half_its_pixels(tmp_path):
    data = io.BytesIO()
    Image.new("RGB", (40, 20)).save(data, "PNG")
    png = data.getvalue()
    output = {
        "data": {"image/png": base64.b64encode(png).decode() + "\n"},
        "metadata": {"image/png": {"width": 20, "height": 10}},
    }
    (tmp_path / "chapters").mkdir()
    notebook = {"cells": [{"outputs": [output]}, {"source": []}]}
    (tmp_path / "chapters" / "x.ipynb").write_text(json.dumps(notebook))
    sharp = offrl_site.sharp_figures(SimpleNamespace(srcdir=tmp_path))
    (name,) = sharp
    for file in (name, "other.png"):
        (tmp_path / file).write_bytes(png)
        size = '"20" height="10"' if file == name else '"40" height="20"'
        page = offrl_site.size_images(f'<img src="{file}">', tmp_path, sharp)
        assert f"width={size}" in page


def test_figures_have_the_names_that_the_extension_expects():
    """MyST-NB calls a figure by the hash of its bytes."""
    notebook = json.loads((ROOT / "chapters" / "bc.ipynb").read_text())
    data = [o["data"] for c in notebook["cells"] for o in c.get("outputs", []) if "data" in o]
    png = next("".join(d["image/png"]) for d in data if "image/png" in d)
    name = hashlib.sha256(base64.b64decode(png)).hexdigest()
    assert (HTML / "_images" / f"{name}.png").exists()
