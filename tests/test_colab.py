"""A rehearsal of "open in Colab": one lone notebook, Colab's package versions, and this package not installed.

The notebook's first cell installs the package from the public address at the release tag; Git is told to
take that address from a local copy of this working tree. `COLAB_REHEARSAL=full` (the weekly run) installs
Colab's own PyTorch too; otherwise the book's copy of PyTorch is lent to the rehearsal, so that it is neither
downloaded nor stored twice.
"""

import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from notebooks import ROOT, chapters, tags

VERSIONS = ROOT / "tests" / "colab" / "requirements.txt"
COPIES = ROOT / "colab" / "chapters"  # what "read and run" opens
CHAPTER = COPIES / "bc.ipynb"
ASSIGNMENT = ROOT / "assignments" / "chapters" / "bc.ipynb"
RELEASE = dict(re.findall(r"(?m)^(url|tag): (\S+)", (ROOT / "repository.yml").read_text()))
FULL = os.environ.get("COLAB_REHEARSAL") == "full"
OTHERS = [COPIES / c.path.name for c in chapters() if c.slug != CHAPTER.stem]

PROBE = """
import json
from pathlib import Path
from importlib.metadata import distribution

import offrl_nb
from offrl_nb.data import SHIPPED
from offrl_nb.methods import bc

nets, table = bc.train(offrl_nb.load("pendulum/mixed-v0"), bc.Config(updates=20), seeds=[0, 1])
print(json.dumps({
    "origin": json.loads(distribution("offrl_nb").read_text("direct_url.json")),
    "version": offrl_nb.__version__,
    "package": str(Path(offrl_nb.__file__).parent),
    "data": str(SHIPPED),
    "losses": table["loss"].dropna().tolist(),
}))
"""


def run(*command, cwd=None, env=None, check=True, timeout=600):
    """Run a command; its error output is the message if it fails."""
    command = [str(part) for part in command]
    done = subprocess.run(
        command, cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout
    )
    if check and done.returncode:
        pytest.fail(f"{' '.join(command[:6])} ... failed:\n{(done.stdout + done.stderr)[-3000:]}")
    return done


def plain_environment():
    """The environment variables without those that could reach back to the book's own environment."""
    private = ("PYTHON", "VIRTUAL_ENV", "JUPYTER", "IPYTHON", "MINARI", "OFFRL", "GIT_", "MPL")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(private)}
    return kept | {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "OMP_NUM_THREADS": "1"}


def python_of(venv):
    return venv / "bin" / "python"


def site_packages(venv):
    return next((venv / "lib").glob("python3*")) / "site-packages"


def need_network(folder):
    """Skip (in CI: fail) unless pip can download something small."""
    question = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder]
    options = ["--no-cache-dir", "--retries", "0", "--timeout", "15", "pluggy"]
    if run(*question, *options, env=plain_environment(), check=False).returncode:
        give_up = pytest.fail if os.environ.get("CI") else pytest.skip
        give_up("The Colab rehearsal installs packages, and there is no network.")


def lend_torch(venv):
    """Let an environment import the book's own torch, and nothing else of the book's environment."""
    lent = venv / "torch-of-the-book"
    shutil.rmtree(lent, ignore_errors=True)
    lent.mkdir()
    torch = importlib.metadata.distribution("torch")
    for name in {file.parts[0] for file in torch.files if file.parts[0] not in ("..", ".")}:
        (lent / name).symlink_to(torch.locate_file(name))
    (site_packages(venv) / "torch-of-the-book.pth").write_text(f"{lent}\n")


def make_environment(venv, wanted):
    """Colab's versions in a virtual environment; with uv if that is there, which is faster."""
    run(sys.executable, "-m", "venv", "--clear", venv)
    install = [python_of(venv), "-m", "pip", "install", "-q"]
    environment = plain_environment()
    if uv := shutil.which("uv"):
        install = [uv, "pip", "install", "-q", "--compile-bytecode", "--python", python_of(venv)]
        environment["UV_FIND_LINKS"] = ",".join(environment.get("PIP_FIND_LINKS", "").split())
    if FULL:
        torch = next(line for line in wanted if line.startswith("torch=="))
        script = (
            ROOT / "scripts" / "env.sh"
        ).read_text()  # the one place that names the CPU builds
        small = [*install, torch, *re.search(r"--index-url \S+", script)[0].split()]
        if run(*small, env=environment, check=False, timeout=1800).returncode:
            run(*install, torch, env=environment, timeout=1800)  # whichever build there is
    else:  # a newer PyTorch than Colab's wants newer tools than Colab's
        tools = [line for line in importlib.metadata.requires("torch") if "setuptools" in line]
        wanted = [line for line in wanted if not line.startswith("setuptools==")] + tools
    versions = venv / "versions.txt"
    versions.write_text("\n".join(line for line in wanted if not line.startswith("torch==")))
    run(*install, "-r", versions, env=environment, timeout=1800)


def colab_environment():
    """An environment as Colab has it, made once and kept under _build."""
    text = VERSIONS.read_text()
    wanted = [line.strip() for line in text.splitlines() if line.strip() and line[0] != "#"]
    torch = "its own" if FULL else importlib.metadata.version("torch")
    key = hashlib.sha256(f"{text} {sys.version} {sys.executable} {torch}".encode()).hexdigest()[:12]
    venv = ROOT / "_build" / f"colab-{key}"
    if not (venv / "complete").exists():
        for old in (ROOT / "_build").glob("colab-*"):
            shutil.rmtree(old)
        make_environment(venv, wanted)
        (venv / "complete").touch()
    return venv


def publish(folder, home):
    """The working tree as a tagged commit in a bare repository, found by Git under the public address."""
    tree, bare = folder / "tree", folder / "public.git"
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    for name in set(filter(None, listed.stdout.split("\0"))):
        if (ROOT / name).is_file():  # not one that was deleted
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)
    git = ["git", "-c", "user.name=rehearsal", "-c", "user.email=rehearsal@localhost"]
    git += ["-c", "commit.gpgsign=false", "-c", "tag.gpgsign=false", "-c", "core.autocrlf=false"]
    environment = plain_environment() | {"HOME": str(home)}
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "rehearsal"]):
        run(*git, *command, cwd=tree, env=environment)
    run(*git, "tag", RELEASE["tag"], cwd=tree, env=environment)
    run("git", "clone", "-q", "--bare", tree, bare, env=environment)
    (home / ".gitconfig").write_text(
        f'[url "{bare.as_uri()}"]\n\tinsteadOf = {RELEASE["url"]}\n[safe]\n\tdirectory = *\n'
    )


class Rehearsal:
    """A rented machine: Colab's packages, a home of its own, and one empty folder for each notebook."""

    def __init__(self, folder, venv):
        self.folder, self.home, self.venv = folder, folder / "home", venv
        self.home.mkdir()
        cache = run(sys.executable, "-m", "pip", "cache", "dir", check=False).stdout.strip()
        self.environment = plain_environment() | {
            "HOME": str(self.home),
            "PATH": f"{self.venv / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "PIP_CACHE_DIR": cache,
            "OFFRL_SIZE": "fast",
        }
        # Hard links make a copy cheap; pip replaces files and never writes into one.
        shutil.copytree(colab_environment(), venv, symlinks=True, copy_function=os.link)
        if not FULL:
            lend_torch(self.venv)
        publish(folder, self.home)
        (self.venv / "bin" / "pip").unlink()  # its first line names the original environment

    def python(self, *arguments, cwd=None, check=True, **variables):
        environment = self.environment | variables
        return run(python_of(self.venv), *arguments, cwd=cwd, env=environment, check=check)

    def packages(self):
        code = (
            "import importlib.metadata as m, json;"
            "print(json.dumps({d.name: d.version for d in m.distributions()}))"
        )
        return json.loads(self.python("-c", code, cwd=self.home).stdout)

    def execute(self, notebook, name, **variables):
        """Run a notebook that lies alone in an empty folder, past all errors; its code cells."""
        alone = self.folder / name
        alone.mkdir()
        shutil.copy2(notebook, alone)
        options = ["--to", "notebook", "--execute", "--allow-errors", "--output", "done.ipynb"]
        self.python("-m", "nbconvert", *options, notebook.name, cwd=alone, **variables)
        cells = json.loads((alone / "done.ipynb").read_text())["cells"]
        return [c for c in cells if c["cell_type"] == "code" and "".join(c["source"]).strip()]


def errors(cells):
    """What went wrong, by the number of the code cell."""
    return {
        number: f"{output['ename']}: {output['evalue']}"
        for number, cell in enumerate(cells)
        for output in cell["outputs"]
        if output["output_type"] == "error"
    }


def printed(cells):
    return "".join("".join(output.get("text", "")) for cell in cells for output in cell["outputs"])


# One process makes the environment and runs all that happens in it.
pytestmark = pytest.mark.xdist_group("colab")


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    if sys.version_info[:2] > (3, 13):
        pytest.skip("Colab runs Python 3.13; its package versions have no builds for newer ones.")
    need_network(tmp_path_factory.mktemp("network"))
    (ROOT / "_build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".colab-", dir=ROOT / "_build") as own:
        folder = tmp_path_factory.mktemp("colab")
        yield Rehearsal(folder, Path(own) / "machine")
        shutil.rmtree(folder)  # it holds the data twice


@pytest.fixture(scope="module")
def opened(machine):
    """The chapter, opened and run as a whole on the fresh machine; packages before and after."""
    before = machine.packages()
    assert "offrl_nb" not in before and "torch" in before
    cells = machine.execute(CHAPTER, "chapter")
    return before, cells, machine.packages()


def test_a_lone_chapter_runs_in_colab(opened):
    _, cells, _ = opened
    assert not errors(cells)
    assert "✗" not in printed(cells)
    assert "was written for" not in printed(cells[:1])


def test_nothing_that_colab_has_is_replaced(opened):
    before, _, after = opened
    added = {name: version for name, version in after.items() if name not in before}
    print("added:", ", ".join(f"{name} {version}" for name, version in sorted(added.items())))
    assert {name: after.get(name) for name in before} == before
    assert "offrl_nb" in added


def test_package_and_data_come_from_the_tag(opened, machine):
    *_, line = machine.python("-c", PROBE, cwd=machine.home).stdout.splitlines()
    found = json.loads(line)  # the line before is the training's own
    assert found["origin"]["url"] == RELEASE["url"]
    assert found["origin"]["vcs_info"]["requested_revision"] == RELEASE["tag"]
    assert f"v{found['version']}" == RELEASE["tag"]
    installed = site_packages(machine.venv).resolve() / "offrl_nb"
    assert Path(found["package"]).resolve() == installed
    assert Path(found["data"]).resolve() == installed / "_data"
    assert found["losses"] and all(loss == loss for loss in found["losses"])


@pytest.mark.skipif(not ASSIGNMENT.exists(), reason="assignments/chapters/bc.ipynb is not there")
def test_a_lone_assignment_reaches_its_end(opened, machine):
    with ThreadPoolExecutor(2) as both:
        relaxed = both.submit(machine.execute, ASSIGNMENT, "relaxed")
        strict = both.submit(machine.execute, ASSIGNMENT, "strict", OFFRL_STRICT="1")
    relaxed, strict = relaxed.result(), strict.result()
    checks = {number for number, cell in enumerate(strict) if "check" in tags(cell)}
    assert not errors(relaxed)
    assert len(checks) >= 4
    assert all("✗" in printed([relaxed[number]]) for number in checks)
    assert set(errors(strict)) == checks, errors(strict)


@pytest.mark.skipif(
    not FULL, reason="the other chapters are rehearsed weekly, COLAB_REHEARSAL=full"
)
@pytest.mark.parametrize("path", OTHERS, ids=lambda path: path.stem)
def test_every_other_chapter_runs_alone(opened, machine, path):
    assert not errors(machine.execute(path, path.stem))
