"""Takes two things off every page that Jupyter Book puts there and that break it.

- Thebe (live code from another host, unused here): its settings land on a page twice, an error in a browser.
- A second MathJax: every script found below _static is added to every page, and Sphinx adds MathJax where a page
  has formulas. Only the latter has its settings, and loading both is an error.
"""


def unwanted(script):
    name, attributes = str(getattr(script, "filename", "")), getattr(script, "attributes", {})
    thebe = "thebe" in name or "THEBE_JS_URL" in (attributes.get("body") or "")
    second_mathjax = "mathjax/" in name and "defer" not in attributes
    return thebe or second_mathjax


def clean(app, page, template, context, doctree):
    context["script_files"] = [s for s in context.get("script_files", []) if not unwanted(s)]


def setup(app):
    app.connect("html-page-context", clean, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
