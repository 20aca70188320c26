"""Re-execute every notebook of _toc.yml with nbval and judge its time and memory (part of `make test`).

A notebook's limit is 150 s and 2 GB on one core; it fails here only at twice that, because machines
differ. What counts is processor time, which other work on the machine hardly changes. Two notebooks
run side by side where there are two cores; all together may take 45 minutes. Checks of exercises are
strict: a solution that its own check refuses fails.
"""

import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import yaml

ROOT = Path(__file__).resolve().parents[1]
SECONDS, GIGABYTES, ALL_SECONDS = 300, 4, 45 * 60
NBVAL = ["--nbval-lax", "--nbval-current-env", f"--nbval-cell-timeout={SECONDS}", "-q", "-x"]


def notebooks() -> list[Path]:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    files = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    return [path for file in files if (path := ROOT / f"{file}.ipynb").exists()]


class Run(NamedTuple):
    """What one re-execution gave: exit status, processor time in seconds, largest memory of a process."""

    name: str
    status: int
    seconds: float
    gigabytes: float
    output: str

    @property
    def failed(self) -> bool:
        return bool(self.status) or self.seconds > SECONDS or self.gigabytes > GIGABYTES


def reexecute(path: Path) -> Run:
    """Run one notebook; the operating system counts time and memory of the process and its kernel."""
    command = [sys.executable, "-m", "pytest", *NBVAL, str(path)]
    environment = os.environ | {"OFFRL_STRICT": "1"}
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    unit = 2**30 if sys.platform == "darwin" else 2**20  # macOS counts in bytes, Linux in kilobytes
    return Run(
        path.name, process.returncode, used.ru_utime + used.ru_stime, used.ru_maxrss / unit, text
    )


def main() -> int:
    failed, start = [], time.perf_counter()
    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        for run in pool.map(reexecute, notebooks()):
            print(f"{run.name}: {run.seconds:.0f} s, at most {run.gigabytes:.1f} GB", flush=True)
            if run.failed:
                print(run.output)
                failed.append(run.name)
    whole = time.perf_counter() - start
    print(f"All notebooks: {whole / 60:.0f} minutes")
    if whole > ALL_SECONDS:
        failed.append(f"the whole book ({whole / 60:.0f} minutes)")
    if failed:
        print("Failed, or over twice the limit of time or memory:", ", ".join(failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
