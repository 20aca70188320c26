"""Moves the book to another public address and release, everywhere at once.

    make set-repo URL=https://github.com/me/book TAG=v0.2.0

`repository.yml` says what holds now. The address is changed in every text file that Git does not ignore; the
tag beside it and on the book's own pages; the version (the tag without its v) in the package, in CITATION.cff and
in the notebooks' setup cells. Outputs of notebooks and CHANGELOG.md stay as they are. Nothing is written before
every new text is known.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

URL = re.compile(r"https://github\.com/([A-Za-z0-9][A-Za-z0-9-]*)/([A-Za-z0-9_][\w.-]*)", re.ASCII)
TAG = re.compile(r"v(?:0|[1-9]\d*)(?:\.(?:0|[1-9]\d*)){2}", re.ASCII)
STRING = r'"(?:[^"\\]|\\.)*"'
SOURCE = re.compile(rf'"source":\s*(?:\[(?:\s*{STRING},?)*\s*\]|{STRING})')  # of a notebook's cell
HISTORY = {"CHANGELOG.md"}
# Here the tag and the version stand alone too, without the address; elsewhere they may be somebody else's.
PAGES = re.compile(r"[^./][^/]*\.(md|yml|toml|cff)|(chapters|assignments)/.*\.(md|ipynb)")


def current(root):
    """(url, tag) of repository.yml."""
    text = (root / "repository.yml").read_text(encoding="utf-8")
    return tuple(re.search(rf"(?m)^{key}: *(\S+)", text)[1] for key in ("url", "tag"))


def mistake(url, tag):
    """What is wrong with a new address or tag, in one sentence; None if nothing is."""
    if not (found := URL.fullmatch(url)) or url.endswith(".git"):
        return (
            f"URL is {url!r}; it has the form https://github.com/<owner>/<name>, "
            "with nothing after the name."
        )
    if found[2].lower().endswith(".github.io"):
        return f"The site of a repository named {found[2]} has no address of its own; choose another name."
    if not TAG.fullmatch(tag):
        return f"TAG is {tag!r}; a release's tag is a v and three numbers, such as v0.2.0."
    return None


def renewal(old, new):
    """A function (path, text) -> new text."""
    (old_url, old_tag), (url, tag) = old, new
    old_owner, old_name = map(re.escape, URL.fullmatch(old_url).groups())
    owner, name = URL.fullmatch(url).groups()
    # owner/name and owner.github.io/name; then either a tag in the same address, or "cd name"
    address = re.compile(
        rf"(?<![\w.-]){old_owner}(?P<site>\.github\.io)?/{old_name}(?![\w-]|\.(?!git\b)\w)"
        rf"(?:(?P<between>[^\s\"'<>()\\]*?[@/]){re.escape(old_tag)}(?![\w-])(?!\.\d)"
        rf"|(?P<cd>(?:\.git)?\s+(?:&& )?cd ){old_name}(?![\w-]))?"
    )
    alone = re.compile(rf"(?<![\w.-]){re.escape(old_tag)}(?![\w-])(?!\.\d)")
    version = re.compile(rf"(?<![\w.-]){re.escape(old_tag[1:])}(?![\w-])(?!\.\d)")

    def new_address(found):
        place = f"{owner}{found['site'] or ''}/{name}"
        if found["between"] is not None:
            return place + found["between"] + tag
        return place + (found["cd"] + name if found["cd"] is not None else "")

    def cell(found):
        text = alone.sub(tag, address.sub(new_address, found[0]))
        return version.sub(tag[1:], text) if "offrl_nb.__version__" in text else text

    def renew(path, text):
        if path.endswith(".ipynb"):
            return SOURCE.sub(cell, text)
        text = address.sub(new_address, text)
        if PAGES.fullmatch(path):
            text = alone.sub(tag, text)
        if path == "offrl_nb/__init__.py":
            text = re.sub(r'(?m)^__version__ = ".*"$', f'__version__ = "{tag[1:]}"', text)
        if path == "CITATION.cff":
            text = re.sub(r"(?m)^version: .*$", f"version: {tag[1:]}", text)
        return text

    return renew


def text_files(root):
    """(path, text) of every text file that Git does not ignore, without history."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=root, capture_output=True, check=True).stdout
    for path in sorted({os.fsdecode(name) for name in names.split(b"\0") if name} - HISTORY):
        if (root / path).is_symlink() or not (root / path).is_file():
            continue
        content = (root / path).read_bytes()
        if b"\0" not in content[:8192]:
            try:
                yield path, content.decode()
            except UnicodeDecodeError:
                continue


def write_all(root, texts):
    """Write every text, or none: what was written is put back if a later one cannot be."""
    before = {path: (root / path).read_bytes() for path in texts}
    try:
        for path, text in texts.items():
            (root / path).write_bytes(text.encode())
    except OSError:
        for path, content in before.items():
            if (root / path).read_bytes() != content:
                (root / path).write_bytes(content)
        raise


def set_repo(root, url, tag):
    """Change the address and the release of the working tree at root; the paths that changed."""
    old = current(root)
    renew = renewal(old, (url, tag))
    texts = {path: (text, renew(path, text)) for path, text in text_files(root)}
    changed = {path: after for path, (before, after) in texts.items() if after != before}
    write_all(root, changed)
    return list(changed)


def main(root, url="", tag=""):
    if not (url or tag):
        return "Say what is new: make set-repo URL=https://github.com/<owner>/<name> TAG=v0.2.0"
    old_url, old_tag = current(root)
    url, tag = url or old_url, tag or old_tag
    if problem := mistake(url, tag):
        return f"{problem} Nothing was changed."
    changed = set_repo(root, url, tag)
    print("\n".join(changed) or f"Everything names {url} and {tag} already.")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(__file__).parents[1], *sys.argv[1:]))
