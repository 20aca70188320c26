"""Moves the book to another public address and release, everywhere at once.

    make set-repo URL=https://github.com/me/book TAG=v0.2.0

Then it says what is left to do, and whether the tag is there: Colab opens the notebooks of the tag, so a tag that
names another address leads readers astray. The same call again, after publishing, checks once more.

`repository.yml` says what holds now. The address changes in every text file that Git does not ignore, the tag
beside it and on the book's own pages, the version (the tag without its v) where the package is named with it.
CHANGELOG.md stays as it is. Needs nothing but Python and Git.
"""

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

URL = re.compile(r"https://github\.com/([A-Za-z0-9][A-Za-z0-9-]*)/([A-Za-z0-9_][\w.-]*)", re.ASCII)
TAG = re.compile(r"v(?:0|[1-9]\d*)(?:\.(?:0|[1-9]\d*)){2}", re.ASCII)
HISTORY = {"CHANGELOG.md"}
# Here the tag stands without the address, too; elsewhere it may be that of somebody else's release.
PAGES = re.compile(r"[^./][^/]*\.(md|yml|toml|cff)|chapters/.*\.md")
NEXT = """
Next:
  1. Look at `git diff`, then commit it.
  2. {tag_step}
  3. git push --tags origin main
  4. In the repository's settings, under Pages, let the source be GitHub Actions. The workflow "pages" builds the
     site at {site}; if it ran before that, run it again."""


def current(texts):
    """(url, tag) of repository.yml."""
    return tuple(
        re.search(rf"(?m)^{key}: *(\S+)", texts["repository.yml"])[1] for key in ("url", "tag")
    )


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


def renew(path, text, old, new):
    """A file's text with the new (url, tag) in place of the old."""
    (owner, name), (new_owner, new_name) = (URL.fullmatch(url).groups() for url, _ in (old, new))
    tag, new_tag = old[1], new[1]
    whole, ends = r"(?<![\w.-])", r"(?![\w-])(?!\.\d)"
    place = rf"{whole}{re.escape(owner)}(\.github\.io)?/{re.escape(name)}(?![\w-]|\.(?!git\b)\w)"
    changes = [
        (rf"({place}[^\s\"'<>()\\]*?[@/]){re.escape(tag)}{ends}", rf"\g<1>{new_tag}"),
        (rf"({place}(?:\.git)? && cd ){re.escape(name)}{ends}", rf"\g<1>{new_name}"),
        (place, rf"{new_owner}\g<1>/{new_name}"),
        (rf"(offrl_nb\.expect\(\\?\"){re.escape(tag[1:])}(?=\\?\")", rf"\g<1>{new_tag[1:]}"),
    ]
    if PAGES.fullmatch(path):
        changes.append((rf"{whole}{re.escape(tag)}{ends}", new_tag))
    if path in ("offrl_nb/__init__.py", "CITATION.cff"):
        changes.append(
            (rf"(?m)^((?:__)?version(?:__ =|:) \"?){re.escape(tag[1:])}\b", rf"\g<1>{new_tag[1:]}")
        )
    for pattern, replacement in changes:
        text = re.sub(pattern, replacement, text)
    return text


def text_files(root):
    """{path: text} of every text file that Git does not ignore, without history."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=root, capture_output=True, check=True).stdout
    texts = {}
    for path in sorted({os.fsdecode(name) for name in names.split(b"\0") if name} - HISTORY):
        if (root / path).is_file() and not (root / path).is_symlink():
            with contextlib.suppress(UnicodeDecodeError):
                texts[path] = (root / path).read_bytes().decode()
    return texts


def step_for_tag(root, url, tag):
    """What is to be done about the tag: whether it exists, and whether its notebooks name this address."""
    show = ["git", "show", f"refs/tags/{tag}:repository.yml"]
    shown = subprocess.run(show, cwd=root, capture_output=True, text=True)
    if shown.returncode:
        return f"git tag {tag}   (it does not exist yet, and Colab opens the notebooks of this tag)"
    if current({"repository.yml": shown.stdout}) != (url, tag):
        return (
            f"Take another TAG: {tag} exists already, and its notebooks name another address or release. "
            f"If nobody has it yet, move it instead: git tag --force {tag}"
        )
    return f"The tag {tag} exists and names this address: nothing to do."


def main(root, url="", tag=""):
    if not (url or tag):
        return "Say what is new: make set-repo URL=https://github.com/<owner>/<name> TAG=v0.2.0"
    texts = text_files(root)
    old = current(texts)
    new = (url or old[0], tag or old[1])
    if problem := mistake(*new):
        return f"{problem} Nothing was changed."
    renewed = {path: renew(path, text, old, new) for path, text in texts.items()}
    changed = [path for path in texts if renewed[path] != texts[path]]
    for path in changed:
        (root / path).write_bytes(renewed[path].encode())
    print("\n".join(changed or [f"Everything names {new[0]} and {new[1]} already."]))
    owner, name = URL.fullmatch(new[0]).groups()
    site = f"https://{owner}.github.io/{name}/"
    print(NEXT.format(tag_step=step_for_tag(root, *new), site=site))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(__file__).parents[1], *sys.argv[1:]))
