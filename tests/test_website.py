"""The built website in a real browser: every page opens without an error and reads well on a phone.

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
        self.page.evaluate("() => window.MathJax?.startup?.promise?.then(() => true)")
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
<script src="http://cdn.example/library.js"></script><script>throw new Error("planted")</script>
</article></body></html>"""


def test_planted_faults_are_seen(visit):
    with visit(PHONE) as v:
        address = f"{v.site}/planted.html"
        v.page.route(address, lambda r: r.fulfill(body=PLANTED, content_type="text/html"))
        v.open("planted.html")
        said = "\n".join(v.problems)
        assert "another host" in said and "planted" in said and "404" in said
        assert v.look(RAW_TEX) and v.look(NO_ALT) and v.look(BROKEN_IMAGES) and v.look(STICKING_OUT)
