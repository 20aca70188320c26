"""The workflows: what starts them, what they may do, and that the files they call are there.

Where actionlint is installed it judges them too.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".github" / "workflows"
FILES = sorted(FOLDER.glob("*.yml"))

STARTS = {
    "ci": {"push", "pull_request"},
    "gpu": {"push", "workflow_dispatch"},
    "pages": {"push", "workflow_dispatch"},
    "weekly": {"schedule", "workflow_dispatch"},
}
# What a job may do beyond reading the code.
MAY = {
    ("pages", "deploy"): {"pages": "write", "id-token": "write"},
    ("weekly", "report"): {"contents": "read", "issues": "write"},
}


def read(path):
    workflow = yaml.safe_load(path.read_text())
    workflow["on"] = workflow.pop(True)  # YAML 1.1 takes the key `on` for true
    return workflow


def steps(workflow):
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def test_all_are_known():
    assert {path.stem for path in FILES} == set(STARTS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_starts_and_permissions(path):
    workflow = read(path)
    assert workflow["name"] == path.stem
    assert set(workflow["on"]) == STARTS[path.stem]
    if "push" in workflow["on"]:
        assert workflow["on"]["push"] == {"branches": ["main"]}
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        assert job.get("permissions") == MAY.get((path.stem, name)), name
        assert job["timeout-minutes"] <= 120, name


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_steps(path):
    targets = set(re.findall(r"(?m)^([a-z]+):", (ROOT / "Makefile").read_text()))
    for step in steps(read(path)):
        assert ("uses" in step) != ("run" in step)
        if "uses" in step:
            assert re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"]), step["uses"]
            continue
        command = step["run"]
        assert "${{" not in command, "values reach a shell through env only"
        if command.startswith("make "):
            assert command.split()[1] in targets, command
        for script in re.findall(r"(?:^|\s)((?:\.ci|scripts)/[\w.-]+)", command):
            assert (ROOT / script).is_file(), script
            assert script.endswith(".py") or os.access(ROOT / script, os.X_OK), script


def test_the_gpu_workflow_waits_for_a_runner():
    (job,) = read(FOLDER / "gpu.yml")["jobs"].values()
    assert job["runs-on"] == "${{ vars.GPU_RUNNER }}"
    assert job["if"] == "${{ vars.GPU_RUNNER != '' }}"
    assert job["env"] == {"TORCH": "cuda", "OFFRL_SIZE": "book"}


def test_the_weekly_parts_are_those_of_the_script():
    parts = read(FOLDER / "weekly.yml")["jobs"]["check"]["strategy"]["matrix"]["part"]
    script = (ROOT / ".ci" / "weekly").read_text()
    assert parts == re.findall(r"(?m)^    (\w+)\)", script)


# A stand-in for GitHub's command line: it knows one open issue or none, and notes what it is asked to do.
GH = """#!/bin/sh
if [ "$2" = list ]; then echo "$OPEN"; else echo "$@" >>"$NOTES"; fi
"""


@pytest.mark.parametrize(
    ("is_open", "logs", "result", "done"),
    [
        ("", {}, "success", []),
        ("7", {}, "success", ["issue close 7"]),
        ("", {"links": "broken"}, "success", ["issue create"]),
        ("7", {"links": "broken"}, "success", ["issue edit 7", "issue comment 7"]),
        ("", {}, "failure", ["issue create"]),
    ],
)
def test_one_issue_at_most(tmp_path, is_open, logs, result, done):
    (tmp_path / "gh").write_text(GH)
    (tmp_path / "gh").chmod(0o755)
    (tmp_path / "logs").mkdir()
    for name, text in logs.items():
        (tmp_path / "logs" / f"{name}.log").write_text(text)
    notes = tmp_path / "notes"
    notes.touch()
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)}
    env |= {"OPEN": is_open, "NOTES": str(notes), "RUN": "run 1", "RESULT": result}
    command = ["bash", ROOT / ".ci" / "weekly-issue", tmp_path / "logs"]
    subprocess.run(command, env=env, check=True, capture_output=True)
    asked = notes.read_text().splitlines()
    assert len(asked) == len(done)
    assert all(line.startswith(start) for line, start in zip(asked, done, strict=True))


def test_actionlint():
    if shutil.which("actionlint") is None:
        pytest.skip("actionlint is not installed, so the workflows' expressions were not checked")
    done = subprocess.run(["actionlint", *FILES], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
