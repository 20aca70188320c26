"""The knob under a figure: what it stores, what it refuses, and how it behaves in a browser."""

import base64
import html
import io
import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import matplotlib

matplotlib.use("agg")

import IPython.display
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import test_website
from matplotlib.text import Text
from nbclient import NotebookClient
from notebooks import chapters
from PIL import Image

from offrl_nb.figures import GREY, METHOD_COLOURS, house_style, slider

STYLE = (Path(__file__).parents[1] / "_static" / "custom.css").read_text()
LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999)
LABELS = [f"τ = {level}: V lies at {level:.1%} of the values" for level in LEVELS]
ALT = "A cloud of values and a line through it"
SHARP = """\
import matplotlib.pyplot as plt
from offrl_nb.figures import house_style
house_style()
plt.figure(figsize=(2, 1)).subplots().plot([0, 1])
plt.show()"""


@pytest.fixture(autouse=True)
def style():
    with matplotlib.rc_context():
        house_style()
        yield
    plt.close("all")


def frame(level: float, title: str = "Values, and V through them"):
    """240 points, two lines of which one moves, and ticks with two decimals."""
    generator = np.random.default_rng(0)
    state, value = generator.random((2, 240))
    figure, ax = plt.subplots(figsize=(5.6, 3.6))
    ax.plot(state, value, "o", markersize=3)
    ax.plot(np.sort(state), level + 0.1 * np.sin(9 * np.sort(state)))
    ax.axhline(0.5)
    ax.text(0.1, 1.1, f"V = {level:.4f}")
    ax.set(ylim=(-0.25, 1.25), yticks=np.arange(-0.25, 1.3, 0.25), xlabel="state", title=title)
    return figure


@pytest.fixture
def shown(monkeypatch):
    """What was displayed, by MIME type."""
    bundles = []
    monkeypatch.setattr(IPython.display, "display", lambda data, raw: bundles.append(data))
    return bundles


@pytest.fixture(scope="module")
def bundle():
    """A typical slider of nine frames, as it was displayed."""
    bundles = []
    with pytest.MonkeyPatch.context() as patch, matplotlib.rc_context():
        patch.setattr(IPython.display, "display", lambda data, raw: bundles.append(data))
        house_style()
        slider([frame(level) for level in LEVELS], LABELS, "expectile τ", ALT, start=4)
    return bundles[0]


class Tags(HTMLParser):
    """The attributes of each tag of a page, which has each once."""

    def __init__(self, page: str):
        super().__init__()
        self.found, self.text = {}, ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        assert tag not in self.found
        self.found[tag] = dict(attributes)

    def handle_data(self, data):
        self.text += data


def stored(page: str) -> dict:
    return json.loads(Tags(page).found["input"]["data-frames"])


def svgs(page: str) -> list[str]:
    """The frames put together as the browser does it."""
    pieces = stored(page)["pieces"]
    count = len(stored(page)["labels"])
    return ["".join(p if isinstance(p, str) else p[i] for p in pieces) for i in range(count)]


def drawn(figure) -> str:
    """A figure's SVG as matplotlib writes it, without what it says about itself."""
    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "offrl_nb"}):
        figure.savefig(file, format="svg")
    return re.sub("(?s)<metadata>.*</metadata>", "", file.getvalue())


def shapes(svg: str) -> list[tuple[str, dict]]:
    """Every element with its attributes: words without spaces, and numbers."""
    return [
        (element.tag, {key: numbers(text) for key, text in element.attrib.items()})
        for element in ET.fromstring(svg).iter()
    ]


def numbers(text: str) -> tuple[list[str], np.ndarray]:
    words = re.split(r"(-?\d+\.\d+)", text)
    return ["".join(w.split()) for w in words[::2]], np.array(words[1::2], float)


def texts(svg: str) -> list[str]:
    return [
        "".join(e.itertext()) for e in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    ]


def test_each_frame_is_what_matplotlib_draws(bundle):
    frames = svgs(bundle["text/html"])
    assert len(set(frames)) == len(LEVELS)
    for level, svg in zip(LEVELS, frames, strict=True):
        original = drawn(frame(level))
        assert texts(svg) == texts(original), "text must stay as it is, with all its digits"
        assert f"V = {level:.4f}" in texts(svg) and "0.75" in texts(svg)
        for (tag, ours), (same, theirs) in zip(shapes(svg), shapes(original), strict=True):
            assert tag == same and ours.keys() == theirs.keys()
            for key, (words, values) in ours.items():
                assert words == theirs[key][0], key
                np.testing.assert_allclose(values, theirs[key][1], atol=0.01)
        assert not re.search(r"\.\d{3}", re.sub(r">[^<]*<", "><", svg)), "a number was not cut"


def test_the_text_of_a_frame_is_that_of_its_figure(shown):
    odd = "0.12345 <b> & 'τ' \"V\"  <!-- 1.999 -->"
    figures = [frame(0.5, odd), frame(0.6, odd)]
    slider(figures, ["a", "b"], "τ", ALT)
    found = set(texts(svgs(shown[0]["text/html"])[0]))
    written = {text.get_text() for text in figures[0].findobj(Text)}
    assert odd in found and {"state", "V = 0.5000"} <= found <= written


def test_an_image_inside_a_frame_keeps_its_numbers(shown):
    figures = []
    for shift in (0, 1):
        figure, ax = plt.subplots()
        ax.imshow(np.arange(12_000).reshape(3, 4000) + shift, interpolation="none", aspect="auto")
        figures.append(figure)
    image = re.search("<image[^>]*>", drawn(figures[1]))[0]
    slider(figures, ["a", "b"], "shift", ALT)
    assert image in svgs(shown[0]["text/html"])[1]


def test_the_same_figures_give_the_same_bytes(shown):
    for _ in range(2):
        slider([frame(level) for level in LEVELS[:2]], LABELS[:2], "expectile τ", ALT)
    first, second = shown
    assert first == second
    assert "<metadata" not in json.dumps(first) and "<!--" not in json.dumps(first)
    assert not Image.open(io.BytesIO(base64.b64decode(first["image/png"]))).info.keys() - {
        "transparency"
    }


def test_nine_frames_take_at_most_200_kb(bundle):
    assert len(json.dumps(bundle, ensure_ascii=False).encode()) < 200_000
    alone = len(drawn(frame(0.5)))
    assert len(json.dumps(stored(bundle["text/html"]))) < 4 * alone, (
        "what frames share is stored once"
    )


def test_the_still_is_small_sharp_and_the_frame_of_the_start(bundle):
    still = Image.open(io.BytesIO(base64.b64decode(bundle["image/png"])))
    image = Tags(bundle["text/html"]).found["img"]
    assert image["src"] == f"data:image/png;base64,{bundle['image/png']}"
    assert (int(image["width"]), int(image["height"])) == (672, 432)
    assert still.size == (2 * 672, 2 * 432) and still.mode == "P"
    assert len(still.getcolors()) <= 64
    file = io.BytesIO()
    frame(LEVELS[4]).savefig(file, dpi=240)
    wanted = np.asarray(Image.open(file).convert("RGB"), float)
    assert np.abs(np.asarray(still.convert("RGB"), float) - wanted).mean() < 1
    assert bundle["text/plain"] == ALT


def test_the_page_holds_a_picture_a_knob_and_nothing_that_a_notebook_might_strip(bundle):
    page = bundle["text/html"]
    tags = Tags(page).found
    assert list(tags) == ["figure", "img", "label", "b", "input", "output"]
    assert not {"id", "hidden"} & {key for attributes in tags.values() for key in attributes}
    assert "\n\n" not in page, "in Markdown, a blank line would end it"
    knob = tags["input"]
    assert {"type": "range", "min": "0", "max": "8", "value": "4"}.items() <= knob.items()
    assert knob["data-lm-suppress-shortcuts"] == "true", "JupyterLab would take the arrow keys"
    assert stored(page)["labels"] == LABELS


def test_words_are_escaped(shown):
    words = ["""a < b & "c" '&amp;' </label><script>alert(1)</script> $name ||@@""", "τ"]
    slider([frame(0.5), frame(0.6)], words, "n" + words[0], "p" + words[0])
    page = Tags(shown[0]["text/html"])
    assert "script" not in page.found
    assert page.found["img"]["alt"] == shown[0]["text/plain"] == "p" + words[0]
    assert page.text.count(words[0]) == 2, "the name and the first label"
    assert stored(shown[0]["text/html"])["labels"] == words
    assert html.escape(words[0]) in shown[0]["text/html"]


def test_the_figures_are_closed(shown):
    slider([frame(0.5), frame(0.6)], ["a", "b"], "τ", ALT)
    assert not plt.get_fignums()


def with_another_artist():
    figure = frame(0.6)
    figure.axes[0].axvline(0.3)
    return figure


@pytest.mark.parametrize(
    ("labels", "start"), [(["a"], 0), (["a", "b", "c"], 0), (["a", "b"], 2), (["a", "b"], -1)]
)
def test_labels_and_start_must_fit_the_figures(shown, labels, start):
    sentence = r"^Give all 2 figures a label, and start at one of them\.$"
    with pytest.raises(ValueError, match=sentence):
        slider([frame(0.5), frame(0.6)], labels, "τ", ALT, start)
    assert not shown


def test_frames_must_hold_the_same_artists(shown):
    with pytest.raises(ValueError, match=r"^Frames \[1\] hold other artists, ticks or points"):
        slider([frame(0.5), with_another_artist(), frame(0.7)], ["a", "b", "c"], "τ", ALT)
    assert not shown


# In a browser

browser = test_website.browser
ADDRESS = "http://slider.test"
KNOB = "input[type=range]"
STATE = """() => {
  const [image, knob, said] = ["img", "input", "output"].map(tag => document.querySelector(tag));
  return {wide: image.naturalWidth, vector: image.src.startsWith("data:image/svg+xml"),
          place: Number(knob.value), said: said.textContent, spoken: knob.getAttribute("aria-valuetext")};
}"""


def opened(browser, page: str, **options):
    """A page with the book's style and one output, and every address that it asks for."""
    asked = []
    context = browser.new_context(**options)
    context.on("request", lambda r: asked.append(r.url))
    body = f"<!doctype html><html lang='en'><style>{STYLE}</style><main>{page}</main></html>"
    context.route(
        "**/*", lambda route: route.fulfill(body=body, content_type="text/html; charset=utf-8")
    )
    sheet = context.new_page()
    sheet.on("pageerror", lambda error: asked.append(f"script error: {error}"))
    sheet.on("console", lambda said: asked.append(f"console: {said.text}"))
    sheet.goto(ADDRESS, wait_until="load")
    return sheet, asked


def moved(sheet, place: int) -> None:
    """The knob, picture and words all stand at a place."""
    sheet.wait_for_function("() => document.querySelector('img').complete")
    state = sheet.evaluate(STATE)
    assert state.pop("wide") > 0, "the picture is broken"
    said = {"said": LABELS[place], "spoken": LABELS[place]}
    assert state == {"vector": True, "place": place, **said}


def test_the_knob_turns_by_key_and_by_mouse(browser, bundle):
    sheet, asked = opened(browser, bundle["text/html"])
    knob = sheet.locator(KNOB)
    knob.wait_for(state="visible")
    moved(sheet, 4)
    knob.focus()
    pictures = set()
    for key, place in [("ArrowRight", 5), ("ArrowUp", 6), ("ArrowLeft", 5), ("ArrowDown", 4)]:
        sheet.keyboard.press(key)
        moved(sheet, place)
    for key, place in [("End", 8), ("ArrowRight", 8), ("Home", 0), ("ArrowLeft", 0)]:
        sheet.keyboard.press(key)
        moved(sheet, place)
    for place in range(len(LEVELS)):
        moved(sheet, place)
        pictures.add(sheet.locator("img").screenshot())
        sheet.keyboard.press("ArrowRight")
    assert len(pictures) == len(LEVELS), "every frame looks different"
    box = knob.bounding_box()
    sheet.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    moved(sheet, 4)
    assert sheet.get_by_role("slider", name="expectile τ", exact=True).count() == 1
    assert [url for url in asked if not url.startswith("data:")] == [f"{ADDRESS}/"]
    sheet.context.close()


def test_the_vector_frame_looks_like_the_still(browser, bundle):
    sheet, _ = opened(browser, bundle["text/html"])
    sheet.locator(KNOB).wait_for(state="visible")
    vector = Image.open(io.BytesIO(sheet.locator("img").screenshot())).convert("L")
    sheet.context.close()
    sheet, _ = opened(browser, bundle["text/html"], java_script_enabled=False)
    still = Image.open(io.BytesIO(sheet.locator("img").screenshot())).convert("L")
    sheet.context.close()
    assert vector.size == still.size
    small = [np.asarray(image.resize((67, 43)), float) for image in (vector, still)]
    assert np.abs(small[0] - small[1]).mean() < 4


@pytest.mark.parametrize("phone", [False, True])
def test_the_knob_is_large_enough_and_the_page_not_too_wide(browser, bundle, phone):
    size = test_website.PHONE if phone else test_website.DESKTOP
    sheet, _ = opened(browser, bundle["text/html"], viewport=size, has_touch=phone)
    knob = sheet.locator(KNOB)
    knob.wait_for(state="visible")
    assert knob.bounding_box()["height"] >= 44
    assert sheet.evaluate("() => document.documentElement.scrollWidth") <= size["width"]
    image = sheet.locator("img").bounding_box()
    assert image["width"] == pytest.approx(min(672, size["width"] - 16), abs=1)
    assert image["height"] / image["width"] == pytest.approx(432 / 672, abs=0.01)
    sheet.context.close()


def test_paper_shows_the_picture_and_its_label_but_no_knob(browser, bundle):
    sheet, _ = opened(browser, bundle["text/html"])
    sheet.locator(KNOB).wait_for(state="visible")
    sheet.locator(KNOB).press("End")
    sheet.emulate_media(media="print")
    assert not sheet.locator(KNOB).is_visible()
    assert sheet.locator("img").is_visible()
    assert sheet.get_by_text(LABELS[8]).is_visible()
    moved(sheet, 8)
    sheet.context.close()


def still_alone(sheet) -> None:
    assert not sheet.locator(KNOB).is_visible()
    assert sheet.get_by_text(LABELS[4]).is_visible()
    image = sheet.locator("img")
    assert image.is_visible() and image.get_attribute("alt") == ALT
    assert image.get_attribute("src").startswith("data:image/png")


def test_without_javascript_the_still_stands_alone(browser, bundle):
    sheet, _ = opened(browser, bundle["text/html"], java_script_enabled=False)
    still_alone(sheet)
    sheet.context.close()


def test_in_a_notebook_that_is_not_trusted_the_still_stands_alone(browser, bundle):
    """JupyterLab strips handlers, data and aria attributes, and disables inputs."""
    page = re.sub(
        r""" (on\w+|data-[\w-]+|aria-[\w-]+)=("[^"]*"|'[^']*')""", "", bundle["text/html"]
    )
    assert "oninput" not in page and "data-frames" not in page
    sheet, asked = opened(browser, page.replace("<input", "<input disabled"))
    sheet.wait_for_function("() => document.querySelector('img').complete")
    still_alone(sheet)
    assert sheet.evaluate("() => document.querySelector('img').naturalWidth") == 2 * 672
    assert [url for url in asked if not url.startswith("data:")] == [f"{ADDRESS}/"]
    sheet.context.close()


def test_every_method_has_a_colour_of_its_own():
    slugs = {chapter.slug for chapter in chapters("method")}
    assert slugs == METHOD_COLOURS.keys(), "offrl_nb/colours.json and the chapters differ"
    assert len(set(METHOD_COLOURS.values())) == len(slugs)
    assert METHOD_COLOURS["bc"] == GREY


def test_figures_of_a_notebook_have_twice_their_pixels():
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(SHARP)])
    NotebookClient(notebook, timeout=120).execute()
    (output,) = [o for o in notebook.cells[0].outputs if "data" in o]
    image = Image.open(io.BytesIO(base64.b64decode(output.data["image/png"])))
    said = output.metadata["image/png"]
    assert image.width // 2 == said["width"] and 200 < said["width"] < 300
