"""Run the demo many times and count how the releases ended: `make runs N=20 ARGS="--fault crash"`.

Each run has other users (its number is the seed). Exits with 1 if not all ended as the first argument says.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter

TURNOUT = [sys.executable, "-c", "from controlplane.cli import main; main()"]


def main() -> None:
    """Run, print a line per run and the sum."""
    wanted, count, *arguments = sys.argv[1:]
    ends: Counter[str] = Counter()
    for number in range(1, int(count) + 1):
        command = [*TURNOUT, "demo", "--headless", "--json", "--seed", str(number), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own command
        lines = done.stdout.splitlines()
        if done.returncode or not lines:
            sys.exit(f"run {number} failed: {done.stderr.strip()}")
        end = json.loads(lines[-1])
        ends[end["outcome"]] += 1
        figures = {key: end[key] for key in ("seconds", "detect_seconds", "requests", "unexplained_failures")}
        print(f"{number:3} {end['outcome']} {figures} {end['reason']['rule'][:100]}", flush=True)
    print(dict(ends))
    sys.exit(ends[wanted] != int(count))


if __name__ == "__main__":
    main()
