"""What the book adds to its theme, and what it takes away.

- Under the title of a notebook page: its links to Colab and its downloads, and the downloads themselves.
- In every page's head: a description, taken from its first paragraphs, and title and picture for previews of links.
- A page for wrong addresses, a sitemap, the book's BibTeX entry (`cite-this-book`), and a search through the prose alone.
- Above each folded solution the stub that it fills in, the formulas of a box `in-short` as MathML, and tables whose
  columns know whether they hold numbers or words.
- Text of the class `published` only where an address is set, of the class `unpublished` only where none is.
- Repairs: names and roles that screen readers trip over, scripts that break a page or that it does not need,
  and what keeps a page from showing early: icons are drawn where they stand, images say their size.

`repository.yml` says where the repository lies and which release Colab opens. As long as its owner is OWNER, no address
is set, and no link on the site leads to one.
"""

import hashlib
import json
import re
import shutil
import struct
import zipfile
from base64 import b64decode
from html import escape
from html.entities import html5
from pathlib import Path
from urllib.parse import urlsplit

import yaml
from docutils import nodes
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

COLAB = "https://colab.research.google.com/github"
SHORTEST, LONGEST = 50, 160  # characters of a description
SHARE = "_static/share.png"  # 1200 x 630, made by scripts/share_image.py
SOLUTION = re.compile(r"(?ms)^( *)# BEGIN SOLUTION\n.*?# END SOLUTION")
NO_PROSE = (nodes.literal_block, nodes.math_block, nodes.raw, nodes.comment)
# What latex2mathml writes that browsers show otherwise than MathJax.
MATHML = [
    ('<mn mathvariant="double-struck">1</mn>', "<mn>𝟙</mn>"),
    ("<mi>&#x0007E;</mi>", "<mo>∼</mo>"),
    ("<mo>&#x0007C;</mo>", '<mo stretchy="false" lspace="0" rspace="0">|</mo>'),
    ('<mo stretchy="false">&#x0007C;</mo>', '<mo stretchy="false" lspace="0" rspace="0">|</mo>'),
    ("<mrow></mrow>", ""),
]
NOT_FOUND = """<section><h1>Page not found</h1>
<p>There is no page at this address. It may have moved, or the address has a typing error.</p>
<ul><li><a href="index.html">Go to the start of the book</a>, with a map of all chapters.</li>
<li><a href="search.html">Search the book</a>.</li></ul></section>"""
README = """The assignments of "Offline RL in Notebooks": its chapters with the solutions taken out.

Open one in Jupyter or upload it to Colab, and run the first cell: it installs the package where it is missing.
Write your answers where the stubs say so; the check below each answers at once.{book}
Code: MIT. Text, figures and data: CC BY 4.0.
"""


def set_addresses(app, config):
    repository = yaml.safe_load((Path(app.confdir) / "repository.yml").read_text())
    owner, name = repository["url"].rstrip("/").split("/")[-2:]
    config.html_theme_options["primary_sidebar_end"] = []  # the place of an advertisement
    config.offrl_published = owner != "OWNER"
    if config.offrl_published:
        config.offrl_colab = f"{COLAB}/{owner}/{name}/blob/{repository['tag']}"
        config.html_baseurl = f"https://{owner}.github.io/{name}/"
        config.html_theme_options |= {
            "repository_url": repository["url"],
            "use_repository_button": True,
            "use_issues_button": True,
        }


def choose_text(app, doctree, page):
    """Takes out what does not hold: of the class `published` without an address, `unpublished` with one."""
    wrong = "unpublished" if app.config.offrl_published else "published"
    for node in list(doctree.findall(nodes.Element)):
        if wrong in node["classes"]:
            node.parent.remove(node)


# Exercises, boxes


def show_stubs(app, doctree):
    """Above each folded solution: what is given, a function's head and docstring, without the answer."""
    for cell in list(doctree.findall(nodes.container)):
        if "tag_solution" in cell["classes"]:
            source = next(cell.findall(nodes.literal_block))
            stub = SOLUTION.sub(r"\1...  # your code here", source.rawsource or source.astext())
            block = nodes.literal_block(stub, stub, language="ipython3", classes=["stub"])
            cell.parent.insert(cell.parent.index(cell), block)


def take_captions(app, doctree):
    """What a cell's metadata say as offrl.caption, above its outputs; `repair` puts it into the table there."""
    for cell in doctree.findall(nodes.container):
        caption = (cell.get("cell_metadata") or {}).get("offrl", {}).get("caption")
        if caption:
            outputs = next(n for n in cell.children if "cell_output" in n["classes"])
            outputs.insert(0, nodes.paragraph("", caption, classes=["table-caption"]))


def mathml(tex, display):
    """A formula as MathML, which a browser shows without a script. Raises ExtensionError for unknown TeX."""
    from latex2mathml.converter import convert  # here: a page without a box needs none of it

    rows = re.fullmatch(r"(?s)\s*\\begin\{(aligned|gathered)\}(.*)\\end\{\1\}\s*", tex)
    if rows:
        lines = [
            line.split("&") for line in re.split(r"\\\\(?:\[[^]]*\])?", rows[2]) if line.strip()
        ]
        cells = [[inner(mathml(cell, display)) for cell in line] for line in lines]
        table = "".join(f"<mtr>{''.join(f'<mtd>{c}</mtd>' for c in line)}</mtr>" for line in cells)
        return f'<math display="{display}"><mtable class="{rows[1]}">{table}</mtable></math>'
    found = convert(tex.strip(), display=display)
    for wrong, right in MATHML:
        found = found.replace(wrong, right)
    if left := re.search(r"\\\w+|<m[io]>&</m", found):
        raise ExtensionError(
            f"The formula of a box cannot be made at build time ({left[0]}): {tex}"
        )
    return found


def inner(math):
    """What a formula holds; without its outer row, which would fill a cell and so not be aligned."""
    return re.fullmatch(r"(?s)<math[^>]*><mrow>(.*)</mrow></math>", math)[1]


def typeset_boxes(app, doctree):
    """Formulas of a box `in-short` are there at once; the others wait for MathJax."""
    for box in doctree.findall(nodes.admonition):
        if "in-short" in box["classes"]:
            for node in [n for n in box.findall() if isinstance(n, nodes.math | nodes.math_block)]:
                block = isinstance(node, nodes.math_block)
                math = mathml(node.astext(), "block" if block else "inline")
                html = f'<div class="formula">{math}</div>' if block else math
                node.parent.replace(node, nodes.raw("", html, format="html"))


# Launch line and downloads


def assignments(app):
    return sorted((Path(app.srcdir) / "assignments" / "chapters").glob("*.ipynb"))


def launch_line(app, page, pathto):
    """Links to Colab and downloads of a notebook page; those of the assignment only where there is one."""
    slug, start = page.split("/")[-1], app.config.offrl_colab
    readable = f"colab/{page}.ipynb"  # the same chapter, in Markdown that Colab understands
    shown = readable if (Path(app.srcdir) / readable).exists() else f"{page}.ipynb"
    run = [f'<a href="{start}/{shown}">read and run</a>']
    download = [
        f'<a href="{pathto(f"_sources/{page}.ipynb", 1)}" download="{slug}.ipynb">notebook</a>'
    ]
    if any(path.stem == slug for path in assignments(app)):
        own = f"assignments/{page}.ipynb"
        run.append(f'<a href="{start}/{own}">assignment</a>')
        href = pathto(own, 1)
        download.append(f'<a href="{href}" download="{slug}_assignment.ipynb">assignment</a>')
    parts = {"Open in Colab": run} if app.config.offrl_published else {}
    parts["Download"] = download
    inner = "\n".join(
        f"<li><span>{name}:</span> {' <span aria-hidden=true>|</span> '.join(links)}</li>"
        for name, links in parts.items()
    )
    return f'\n<ul class="launch-line" aria-label="Run or download this chapter">\n{inner}\n</ul>'


def write_downloads(app):
    """Copies the assignments into the site, one by one and as one archive that is the same at every build."""
    out = Path(app.outdir)
    shutil.rmtree(out / "assignments", ignore_errors=True)
    (out / "assignments.zip").unlink(missing_ok=True)
    if not assignments(app):
        return
    (out / "assignments" / "chapters").mkdir(parents=True)
    address = app.config.html_baseurl
    files = {"README.txt": README.format(book=address and f" The book: {address}").encode()}
    for path in assignments(app):
        files[path.name] = path.read_bytes()
        (out / "assignments" / "chapters" / path.name).write_bytes(files[path.name])
    with zipfile.ZipFile(out / "assignments.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(f"assignments/{name}", (1980, 1, 1, 0, 0, 0))
            entry.external_attr, entry.compress_type = 0o644 << 16, zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)


# The head of a page


def sentences(doctree):
    for paragraph in doctree.findall(nodes.paragraph):
        if paragraph.parent.tagname == "section":
            words = " ".join(paragraph.astext().split()).removeprefix("The question. ")
            yield from re.split(r"(?<=[.?!]) ", words)


def describe(doctree):
    """The first sentences of a page, as few as make a description, cut where they are too long for one."""
    text = ""
    for sentence in sentences(doctree):
        if len(text) >= SHORTEST:
            break
        text = f"{text} {sentence}".strip()
    if len(text) > LONGEST:
        text = text[: LONGEST - 1].rsplit(" ", 1)[0].rstrip(",;:") + "…"
    return text


def head(app, page, context, doctree):
    """Description and Open Graph tags. `descriptions` in _config.yml goes before the first paragraph."""
    own = context.get("descriptions", {}).get(page)
    text = own or (describe(doctree) if doctree is not None else "")
    title = re.sub(r"<.*?>", "", context.get("title", ""))
    tags = {"og:title": title, "og:type": "article", "og:site_name": app.config.html_title}
    tags |= {"og:description": text} if text else {}
    lines = [f'<meta name="description" content="{escape(text)}" />'] if text else []
    if app.config.offrl_published:  # these need a whole address
        tags |= {"og:url": context.get("pageurl"), "og:image": app.config.html_baseurl + SHARE}
        lines.append('<meta name="twitter:card" content="summary_large_image" />')
    lines += [f'<meta property="{k}" content="{escape(v)}" />' for k, v in tags.items() if v]
    return "\n".join(lines)


# Citation, search, and what is found from outside


def bibtex(cff, year, published):
    """The book as a BibTeX entry, from what CITATION.cff says."""
    names = [
        f"{{{a['name']}}}" if "name" in a else f"{a['family-names']}, {a['given-names']}"
        for a in cff["authors"]
    ]
    fields = {"title": f"{{{cff['title']}}}", "author": " and ".join(names), "year": year}
    fields |= {"note": f"Version {cff['version']}"} | ({"url": cff["url"]} if published else {})
    key = re.sub(r"\W+", "_", cff["title"].lower())
    lines = "".join(f"  {name:<6} = {{{value}}},\n" for name, value in fields.items())
    return f"@misc{{{key},\n{lines}}}"


class CiteThisBook(SphinxDirective):
    def run(self):
        path = Path(self.env.app.confdir) / "CITATION.cff"
        self.env.note_dependency(str(path))
        cff = yaml.safe_load(path.read_text())
        text = bibtex(cff, self.config.copyright, self.config.offrl_published)
        return [nodes.literal_block(text, text, language="bibtex")]


def plain(tex):
    """A short formula as it would be typed; an ellipsis for any other."""
    tex = re.sub(r"\\(\w+) ?", lambda m: html5.get(f"{m[1]};", m[0]), tex)
    return "…" if re.search(r"[\\{}^]", tex) else tex


def prose(doctree):
    """A copy of a page without its code, formulas and outputs."""
    copy = doctree.deepcopy()
    for node in list(copy.findall(nodes.Element)):
        if isinstance(node, nodes.math):
            node.parent.replace(node, nodes.Text(plain(node.astext())))
        elif isinstance(node, NO_PROSE) or {"cell_input", "cell_output"} & set(node["classes"]):
            node.parent.remove(node)
    return copy


def search_prose(app):
    """Sphinx looks for words in all that a page holds; here it gets the prose."""
    if app.builder.format == "html":
        index_page = app.builder.index_page
        app.builder.index_page = lambda page, doctree, title: index_page(
            page, prose(doctree), title
        )


def page_not_found(app):
    yield "404", {"title": "Page not found", "body": NOT_FOUND}, "page.html"


def link_from_root(path, address):
    """The page for wrong addresses is shown at any depth, so its links begin at the root of the site."""
    root = urlsplit(address).path or "/"
    links = r'((?:href|src|action|content_root)=")(?!\w+:|[#/])(?:\./)?'
    path.write_text(re.sub(links, rf"\g<1>{root}", path.read_text()))


def write_sitemap(app):
    """The addresses of all pages, for search engines; only where the site has an address."""
    path, start = Path(app.outdir) / "sitemap.xml", app.config.html_baseurl
    path.unlink(missing_ok=True)
    if start:
        pages = [app.builder.get_target_uri(page) for page in sorted(app.env.found_docs)]
        urls = "".join(f"<url><loc>{escape(start + page)}</loc></url>\n" for page in pages)
        path.write_text(
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n{urls}</urlset>\n'
        )


# Repairs


def unwanted(script):
    """Thebe (live code from another host, whose settings land on a page twice), and a second MathJax.

    Every script below _static is added to every page, and Sphinx adds MathJax where a page has formulas.
    Only the latter has its settings, and loading both is an error.
    """
    name, attributes = str(getattr(script, "filename", "")), getattr(script, "attributes", {})
    thebe = "thebe" in name or "THEBE_JS_URL" in (attributes.get("body") or "")
    second_mathjax = "mathjax/" in name and "defer" not in attributes
    return thebe or second_mathjax


def mathjax(script):
    return "mathjax" in f"{script.filename} {script.attributes.get('body')}".lower()


EARLY = (
    '{light: "light", dark: "dark"}[localStorage.getItem("mode")] || '
    '(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");'
)
REPAIRS = [
    # the name of a button or a fold is the text that it shows
    (r'<summary aria-label="Toggle hidden content">', "<summary>"),
    (r'(<button class="btn search-button-field[^>]*?) aria-label="Search"', r"\1"),
    # everything on a page lies in a named part of it
    (r'<div id="pst-primary-sidebar"', r'\g<0> role="region" aria-label="Sidebar"'),
    # the corner of a table heads nothing
    (r"<th(?: [^>]*)?>\s*</th>", "<td></td>"),
    # roles that ARIA has given up
    (r' role="doc-biblioentry"', ' role="listitem"'),
    # the text comes first, scripts later; the one line that cannot wait is not needed
    (r'<script ((?:[\w-]+="[^"]*" )*)src="', r'<script defer \1src="'),
    (r"<script>DOCUMENTATION_OPTIONS.pagename = '[^']*';</script>", ""),
    (r'<script defer defer(?:="defer")? ', "<script defer "),
    # site.js fetches MathJax when the reader moves: 1.1 MB less before the first view of a page
    (
        r'<script defer src="([^"]*mathjax/tex-chtml\.js[^"]*)"></script>',
        r'<meta name="mathjax" content="\1" />',
    ),
    # site.js mends what searchtools.js defines
    (
        r'(<script defer src="_static/site\.js[^>]*></script>)\s*'
        r'(<script defer src="_static/searchtools\.js[^>]*></script>)',
        r"\2\n  \1",
    ),
    # light or dark from the first paint on, not when the theme's script has come
    (r'dataset\.theme = localStorage\.getItem\("theme"\) \|\| "auto";', "dataset.theme = " + EARLY),
    # a second time said
    (r'(?<=/>)<meta name="viewport"[^>]*>|(?<=\n)  <meta name="viewport"[^>]*"/>\n', ""),
]
# A cell that holds a number, several, an interval, or nothing.
NUMBER = re.compile(r"(?:&nbsp;|\s)*(?:[-−+±~≈<>(\[]|&[lg]t;)*(?:\d|\.\d|nan|NaN|inf|–|—|$)|[-–—]$")
ICON = re.compile(r'<(i|span) class="((?:[^"]* )?(?:fa-solid|fas|fab) [^"]*)"([^>]*)></\1>')


def draw_icons(html, static):
    """The theme draws its dozen icons with a script of 1.5 MB. Here they become what that script would make."""
    script = re.compile(r"<script[^>]*scripts/fontawesome\.js[^>]*></script>")
    if not script.search(html):
        return html
    source = (static / "scripts" / "fontawesome.js").read_text()
    brands, rest = source.split('("fab",', 1)
    solid = rest.split('("far",', 1)[1].split('("fas",', 1)[0]

    def svg(match):
        classes, others = match[2].split(), re.sub(r' title="[^"]*"', "", match[3])
        name = next(
            c[3:] for c in classes if c.startswith("fa-") and c not in ("fa-solid", "fa-lg")
        )
        drawing = re.compile(
            rf'[{{,]"?{re.escape(name)}"?:\[(\d+),(\d+),\[[^]]*\],"\w+","([^"]+)"\]'
        )
        found = drawing.search(brands if "fab" in classes else solid)
        if not found:
            return match[0]  # the style sheet has a font for the rest
        width, height, path = found.groups()
        kept = " ".join(c for c in classes if c not in ("fab", "fas", "fa-solid"))
        return (
            f'<svg class="svg-inline--fa {kept}"{others} viewBox="0 0 {width} {height}" aria-hidden="true">'
            f'<path fill="currentColor" d="{path}"/></svg>'
        )

    return ICON.sub(svg, script.sub("", html))


def sharp_figures(app):
    """{file name: (width, height)} of figures that notebooks store with more pixels than they show."""
    found = {}
    for path in Path(app.srcdir, "chapters").glob("*.ipynb"):
        cells = json.loads(path.read_text())["cells"]
        for output in (o for cell in cells for o in cell.get("outputs", [])):
            if size := output.get("metadata", {}).get("image/png"):
                png = b64decode("".join(output["data"]["image/png"]))
                name = f"{hashlib.sha256(png).hexdigest()}.png"  # as MyST-NB calls it
                found[name] = size["width"], size["height"]
    return found


def size_images(html, folder, sharp):
    """Width and height of each PNG, so that nothing jumps when it arrives (the theme's own rule undoes the width)."""

    def sized(match):
        path = folder / match[1]
        if " width=" in match[0] or not path.is_file():
            return match[0]
        pixels = struct.unpack(">II", path.read_bytes()[16:24])
        width, height = sharp.get(path.name, pixels)
        size = f'width="{width}" height="{height}" style="width: {width}px"'
        late = "" if match.start() < 20_000 else 'loading="lazy" '  # far below the first screen
        return f"<img {late}{size}{match[0][4:]}"

    return re.sub(r'<img [^>]*src="([^":]+\.png)"[^>]*>', sized, html)


def caption_tables(html):
    """A caption above a data frame moves into it, where a screen reader finds it."""
    above = r'(?s)<p class="table-caption">((?:(?!</p>).)*)</p>(.*?<table border="1" class="dataframe">)'
    return re.sub(above, r"\2<caption>\1</caption>", html)


def name_columns(html):
    """Columns of data frames that hold words get the class `words`: numbers stand at the right, words at the left."""
    opening = re.compile(r"<t[hd]>")

    def named(table):
        body = re.findall(r"(?s)<tr>(.*?)</tr>", table[0].partition("<tbody>")[2])
        rows = [re.findall(r"<t[hd]>(.*?)</t[hd]>", row) for row in body]
        words = {i for row in rows for i, text in enumerate(row) if not NUMBER.match(text)}

        def marked(row):
            cells = [cell[0] for cell in opening.finditer(row[0])]
            marks = iter(
                f'{x[:-1]} class="words">' if i in words else x for i, x in enumerate(cells)
            )
            return opening.sub(lambda _: next(marks), row[0])

        return re.sub(r"(?s)<tr.*?</tr>", marked, table[0])

    return re.sub(r'(?s)<table border="1" class="dataframe">.*?</table>', named, html)


def repair(path, static, sharp):
    """Repairs a page; the patterns that it had a place for."""
    html = path.read_text()
    better, fitted = draw_icons(html, static), set()
    better = caption_tables(name_columns(size_images(better, path.parent, sharp)))
    for pattern, replacement in REPAIRS:
        better, times = re.subn(pattern, replacement, better)
        fitted |= {pattern} if times else set()
    if better != html:
        path.write_text(better)
    return fitted


def change_page(app, page, template, context, doctree):
    formulas = 'class="math' in context.get("body", "")
    scripts = [s for s in context.get("script_files", []) if not unwanted(s)]
    context["script_files"] = [s for s in scripts if formulas or not mathjax(s)]
    context["css_files"] = [
        c for c in context.get("css_files", []) if "thebe" not in str(c.filename)
    ]
    context["metatags"] = context.get("metatags", "") + "\n" + head(app, page, context, doctree)
    if (Path(app.srcdir) / f"{page}.ipynb").exists():
        line = launch_line(app, page, context["pathto"])
        context["body"] = context["body"].replace("</h1>", f"</h1>{line}", 1)


def finish(app, error):
    if error or app.builder.format != "html":
        return
    write_downloads(app)
    static, sharp, fitted = Path(app.outdir) / "_static", sharp_figures(app), set()
    for path in Path(app.outdir).rglob("*.html"):
        if static not in path.parents:
            fitted |= repair(path, static, sharp)
    link_from_root(Path(app.outdir) / "404.html", app.config.html_baseurl)
    write_sitemap(app)
    if app.fresh_env_used:  # otherwise some pages were repaired by an earlier build
        for pattern in {pattern for pattern, _ in REPAIRS} - fitted:
            raise ExtensionError(
                f"No page has what this repair is for; is the theme another? {pattern}"
            )


def setup(app):
    app.add_config_value("offrl_colab", "", "html")
    app.add_config_value("offrl_published", False, "env")
    app.add_directive("cite-this-book", CiteThisBook)
    app.connect("config-inited", set_addresses, priority=10)
    app.connect("builder-inited", search_prose)
    app.connect("doctree-read", show_stubs)
    app.connect("doctree-read", take_captions)
    app.connect("doctree-read", typeset_boxes)
    app.connect("doctree-resolved", choose_text)
    app.connect("html-collect-pages", page_not_found)
    app.connect("html-page-context", change_page, priority=900)
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
