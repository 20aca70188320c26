"""The workflows: GitHub's schema knows what they say, and what they call is there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".github" / "workflows"
FILES = sorted(FOLDER.glob("*.yml"))


def test_the_schema_of_workflows():
    check = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.github-workflows",
    ]
    done = subprocess.run([*check, *FILES], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_steps(path):
    workflow = yaml.safe_load(path.read_text())
    targets = set(re.findall(r"(?m)^([a-z]+):", (ROOT / "Makefile").read_text()))
    assert workflow["permissions"] == {"contents": "read"}, "a job asks for more where it needs it"
    for step in (step for job in workflow["jobs"].values() for step in job["steps"]):
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


@pytest.mark.parametrize(
    ("workflow", "job", "script", "elsewhere"),
    [("ci", "tests", "scripts/test.sh", {"gpu"}), ("weekly", "check", ".ci/weekly", set())],
)
def test_parts_are_those_of_the_script(workflow, job, script, elsewhere):
    read = yaml.safe_load((FOLDER / f"{workflow}.yml").read_text())
    parts = set(read["jobs"][job]["strategy"]["matrix"]["part"])
    assert parts | elsewhere == set(re.findall(r"(?m)^    (\w+)\)", (ROOT / script).read_text()))


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
