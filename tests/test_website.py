"""The built website in a real browser: every page opens without an error, reads well on a phone, on paper and
with a screen reader (as far as axe-core can tell), and leads to its notebooks.

Needs `_build/html` (make book) and Chromium or Chrome. Without a browser the tests are skipped, and fail
where CI is set, so that they cannot vanish unnoticed.
"""

import functools
import http.server
import itertools
import json
import os
import re
import shutil
import threading
import urllib.request
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
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
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


def toc_pages() -> list[str]:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    return [toc["root"], *(c["file"] for part in toc["parts"] for c in part["chapters"])]


PAGES = toc_pages()
NOTEBOOKS = [page for page in PAGES if (ROOT / f"{page}.ipynb").exists()]
AXE = ROOT / "tests" / "vendor" / "axe.min.js"


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
        self.site, self.problems = site, []
        self.context = browser.new_context(viewport=viewport)
        self.context.route("**/*", self._route)
        self.page = self.context.new_page()
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.problems.append(f"script error: {error}"))
        self.page.on("requestfailed", lambda r: self.problems.append(f"failed request: {r.url}"))
        self.page.on("response", self._response)

    def _route(self, route):
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
        # formulas are typeset after the page has loaded, when they come near; printing wants them all
        self.page.wait_for_function(
            "() => !document.querySelector('.math') || window.MathJax?.startup?.promise"
        )
        self.page.evaluate(
            "() => window.MathJax?.startup?.promise?.then(() => dispatchEvent(new Event('beforeprint')))"
        )
        self.page.wait_for_function("() => !document.querySelector('mjx-lazy')")
        return self

    def look(self, script):
        return self.page.evaluate(script)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.context.close()


@pytest.fixture
def visit(browser, site):
    return functools.partial(Visit, browser, site)


# What a reader would see of a formula that was not typeset.
RAW_TEX = r"""() => {
  const copy = document.querySelector("article").cloneNode(true);
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
  .map(h => [Number(h.tagName[1]), h.textContent.trim()])"""
# Elements that stick out of the window and are not inside a box that scrolls by itself.
STICKING_OUT = """() => {
  const width = document.documentElement.clientWidth, out = [];
  if (document.documentElement.scrollWidth <= width) return out;
  for (const e of document.querySelectorAll("article *"))
    if (e.getBoundingClientRect().right > width + 1) out.push(e.tagName + "." + e.className);
  return out.concat("page is " + document.documentElement.scrollWidth + " wide").slice(-5);
}"""


@pytest.mark.parametrize("page", PAGES)
def test_page_on_a_desktop(visit, page):
    with visit() as v:
        v.open(f"{page}.html")
        assert v.problems == []
        levels = [level for level, text in v.look(HEADINGS) if text]
        assert levels.count(1) == 1, "a page has one title"
        jumps = [b - a for a, b in itertools.pairwise(levels)]
        assert max(jumps, default=0) <= 1, "headings skip a level"
        assert v.look("() => document.documentElement.lang") == "en"
        assert v.look(RAW_TEX) == []
        assert v.look(BAD_MATHS) == []
        if re.search(r"\$[^$]+\$", source(page)):
            assert v.look("() => document.querySelectorAll('article mjx-container').length") > 0
        assert v.look(NO_ALT) == [], "images need alt text"
        assert v.look(BROKEN_IMAGES) == []


@pytest.mark.parametrize("page", PAGES)
def test_page_on_a_phone(visit, page):
    with visit(PHONE) as v:
        v.open(f"{page}.html")
        assert v.problems == []
        assert v.look(STICKING_OUT) == [], "the page scrolls sideways"


def repository() -> dict[str, str]:
    return yaml.safe_load((ROOT / "repository.yml").read_text())


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


LINKS = "selector => [...document.querySelectorAll(selector)].map(a => a.href)"


@pytest.mark.parametrize("page", NOTEBOOKS)
def test_a_notebook_page_leads_to_colab_and_downloads(visit, page):
    with visit() as v:
        v.open(f"{page}.html")
        links = v.page.evaluate(LINKS, "h1 + .launch-line a")
        notebooks = [f"{page}.ipynb"]
        if has_exercises(page):
            notebooks.append(f"assignments/{page}.ipynb")
        half = len(notebooks)
        assert links[:half] == [colab(path) for path in notebooks]
        assert v.page.evaluate(LINKS, "a[href*='colab.research']") == links[:half], (
            "a second button"
        )
        assert missing_notebooks(links) == []
        assert len(links) == 2 * half
        for link, path in zip(links[half:], notebooks, strict=True):
            with urllib.request.urlopen(link) as answer:
                assert answer.status == 200
                assert answer.read() == (ROOT / path).read_bytes(), f"{link} is not {path}"


def test_all_assignments_come_as_one_archive(visit):
    with visit() as v:
        v.open("chapters/using_this_book.html")
        (link,) = v.page.evaluate(LINKS, "article a[href$='assignments.zip']")
        assert link == f"{v.site}/assignments.zip"
    with zipfile.ZipFile(HTML / "assignments.zip") as archive:
        names = {entry.filename: entry.date_time for entry in archive.infolist()}
        notebooks = sorted(
            path.name for path in (ROOT / "assignments" / "chapters").glob("*.ipynb")
        )
        assert set(names) == {f"assignments/{name}" for name in ["README.txt", *notebooks]}
        assert set(names.values()) == {(1980, 1, 1, 0, 0, 0)}, "two builds give the same archive"


def test_every_page_describes_itself(visit):
    said = {}
    with visit() as v:
        for page in [*PAGES, "search"]:
            v.open(f"{page}.html")
            texts = v.look(
                "() => [...document.querySelectorAll('meta[name=description]')].map(m => m.content)"
            )
            assert len(texts) == 1 and 50 <= len(texts[0]) <= 160, f"{page}: {texts}"
            assert texts[0] not in said, f"{page} and {said[texts[0]]} say the same"
            said[texts[0]] = page
            title = "() => document.querySelector('meta[property=\"og:title\"]')?.content"
            assert page == "search" or v.look(title)
            assert "No cookies" in v.look(
                "() => document.querySelector('.bd-footer-content').innerText"
            )


# Everything that axe-core holds for an error; folded cells are opened, so that it sees them.
OPEN_FOLDS = """async () => {
  document.querySelectorAll("details").forEach(d => d.open = true);
  await new Promise(done => setTimeout(done, 450));  // the theme looks anew for what scrolls
}"""
FAULTS = """async rules => {
  const tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
  const runOnly = rules.length ? {type: "rule", values: rules} : {type: "tag", values: tags};
  const found = await axe.run({runOnly, resultTypes: ["violations"]});
  return found.violations.flatMap(v => v.nodes.map(n => v.id + ": " + n.target + " " + n.html.slice(0, 120)));
}"""
# Thousands of coloured words in listings, which look the same at every width: once is enough, and fast.
ONE_COLOUR = """() => document.querySelectorAll(".highlight pre").forEach(e => { e.textContent = e.textContent })"""
COLOURS = ["color-contrast", "link-in-text-block"]  # all that another theme can change


@pytest.mark.parametrize("page", [*PAGES, "search"])
def test_page_is_accessible(visit, page):
    with visit() as v:
        v.open(f"{page}.html")
        v.page.add_script_tag(content=AXE.read_text())
        for size in (DESKTOP, PHONE):
            v.page.set_viewport_size(size)
            if size is PHONE:
                v.look(ONE_COLOUR)
            for theme, rules in (("light", []), ("dark", COLOURS)):
                v.look(f"() => {{ document.documentElement.dataset.theme = '{theme}' }}")
                if theme == "light":
                    v.look(OPEN_FOLDS)
                assert v.page.evaluate(FAULTS, rules) == [], (size, theme)


SHOWN = """selector => [...document.querySelectorAll(selector)]
  .filter(e => e.checkVisibility() && e.getBoundingClientRect().height > 0).map(e => e.className || e.tagName)"""
ON_SCREEN_ONLY = (
    ".bd-sidebar-primary, .bd-sidebar-secondary, .bd-header-article, .launch-line, .prev-next-footer, "
    "article button, article details.hide > summary"
)


@pytest.mark.parametrize("page", PAGES)
def test_page_on_paper(visit, page):
    with visit() as v:
        v.open(f"{page}.html")
        assert v.page.evaluate(SHOWN, ON_SCREEN_ONLY) != []
        v.page.emulate_media(media="print")
        assert v.page.evaluate(SHOWN, ON_SCREEN_ONLY) == []
        assert v.page.evaluate(SHOWN, "article p") != []
        assert v.look("() => document.querySelectorAll('article details.hide[open]').length") == 0
        cut = v.look(
            "() => [...document.querySelectorAll('article pre')]"
            ".filter(e => e.checkVisibility() && e.scrollWidth > e.clientWidth + 1).length"
        )
        assert cut == 0, "code is cut off"


@pytest.mark.parametrize("page", PAGES)
def test_folded_cells_open(visit, page):
    with visit() as v:
        v.open(f"{page}.html")
        folds = v.page.locator("article details.hide")
        for k in range(min(folds.count(), 3)):
            fold = folds.nth(k)
            assert not fold.evaluate("d => d.open")
            fold.locator("summary").click()
            assert fold.evaluate("d => d.open && d.scrollHeight > 40")
        assert v.problems == []


def test_links_inside_the_book_lead_somewhere(visit):
    with visit() as v:
        for page in PAGES:
            v.open(f"{page}.html")
            links = v.look(
                "() => [...document.querySelectorAll('article a[href]')].map(a => a.href)"
            )
            for link in links:
                if link.startswith(v.site):
                    path, _, anchor = link.removeprefix(f"{v.site}/").partition("#")
                    target = HTML / (path or "index.html")
                    assert target.is_file(), f"{page} links to {path}, which is not there"
                    assert not anchor or f'id="{anchor}"' in target.read_text(), (
                        f"{page}: #{anchor}"
                    )


def test_search_finds_a_chapter(visit):
    with visit() as v:
        v.open("search.html?q=cloning")
        v.page.wait_for_selector("#search-results li a", timeout=10_000)
        found = v.look(
            "() => [...document.querySelectorAll('#search-results li a')].map(a => a.href)"
        )
        assert any("chapters/bc.html" in link for link in found)
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
        rules = {fault.split(":")[0] for fault in v.page.evaluate(FAULTS, [])}
        assert {"color-contrast", "button-name", "image-alt", "empty-table-header"} <= rules


def test_a_link_to_a_missing_assignment_is_seen():
    there, not_there = "assignments/chapters/bc.ipynb", "assignments/chapters/unwritten.ipynb"
    assert missing_notebooks([colab(there), colab(not_there)]) == [not_there]
