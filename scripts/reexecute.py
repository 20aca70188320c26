"""Re-execute every notebook of _toc.yml with nbval and judge its time and memory (part of `make test`).

A notebook's limit is 150 s and 2 GB on one core; it fails here only at twice that, because machines
differ. What counts is processor time, which other work on the machine hardly changes; all together may
take 45 minutes of it. As many notebooks run side by side as there are cores, and memory at 2 GB for each.
Checks of exercises are strict: a solution that its own check refuses fails.
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


def side_by_side() -> int:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return max(1, min(os.cpu_count() or 1, int(memory / (GIGABYTES / 2))))


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
    environment = os.environ | {"OFFRL_STRICT": "1", "OMP_NUM_THREADS": "1"}
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
    failed, seconds, start = [], 0.0, time.perf_counter()
    with ThreadPoolExecutor(side_by_side()) as pool:
        for run in pool.map(reexecute, notebooks()):
            print(f"{run.name}: {run.seconds:.0f} s, at most {run.gigabytes:.1f} GB", flush=True)
            seconds += run.seconds
            if run.failed:
                print(run.output)
                failed.append(run.name)
    took = (time.perf_counter() - start) / 60
    print(f"All notebooks: {seconds / 60:.0f} minutes of a processor, {took:.0f} by the clock")
    if seconds > ALL_SECONDS:
        failed.append("the whole book (45 minutes of a processor)")
    if failed:
        print("Failed, or over the limit of time or memory:", ", ".join(failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
