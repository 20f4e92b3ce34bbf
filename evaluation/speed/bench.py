"""All benchmarks of what people wait for, beside the figures of a stored commit: `make bench`.

    OMP_NUM_THREADS=1 FEWSHOT_NLP_DATA=... python evaluation/speed/bench.py [NAME ...] [--store] [--repeats 5]

Prints a table: processor seconds now, as stored in evaluation/results/bench.json, and their ratio. It is divided by
that of a fixed piece of arithmetic ("reference"), so that another machine's speed cancels. One above 1.03 is a
regression; look at the range first. ``--store`` writes what was measured in place of what is stored.
"""

import argparse
import json
import platform
import statistics
import subprocess
from collections.abc import Callable
from pathlib import Path

import torch
from common import interleaved
from waits import BENCHMARKS, Scale

STORED = Path(__file__).parents[1] / "results" / "bench.json"
HEAD = "| | seconds | range | stored | now / stored |\n|---|---|---|---|---|"


def reference() -> Callable[[], object]:
    """Arithmetic that no change of the package changes: products of matrices of the sizes of a small encoder."""
    left, right = torch.ones(2048, 384), torch.ones(384, 1536)
    return lambda: [left @ right for _ in range(6)]


def measure(names: list[str], scale: Scale) -> dict[str, list[float]]:
    """Seconds of each benchmark's calls, the reference taking turns with them."""
    seconds: dict[str, list[float]] = {}
    for name in names:
        with BENCHMARKS[name](scale) as calls:
            found = interleaved({"reference": reference(), **calls}, repeats=scale.repeats)
        seconds |= {f"{name}: {call}": values for call, values in found.items()}
    return seconds


def table(seconds: dict[str, list[float]], stored: dict[str, float]) -> str:
    """One row a call; the ratio to the stored median, over the ratio of the references."""
    rows = [HEAD]
    for name, values in seconds.items():
        now, reference_name = statistics.median(values), f"{name.split(':')[0]}: reference"
        if name == reference_name:
            continue
        cells = [name, f"{now:.4g}", f"{min(values):.4g} to {max(values):.4g}", "", ""]
        if name in stored:
            machine = statistics.median(seconds[reference_name]) / stored[reference_name]
            cells[3:] = [f"{stored[name]:.4g}", f"{now / stored[name] / machine:.2f}"]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def store(seconds: dict[str, list[float]], path: Path = STORED) -> None:
    """Writes medians beside those of benchmarks that were not run, and the commit."""
    values = json.loads(path.read_text())["seconds"] if path.exists() else {}
    values |= {name: round(statistics.median(found), 5) for name, found in seconds.items()}
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    about = {"commit": commit.stdout.strip(), "torch": torch.__version__, "machine": platform.machine()}
    path.write_text(json.dumps({**about, "seconds": dict(sorted(values.items()))}, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names", nargs="*", choices=[[], *BENCHMARKS], metavar="NAME", help=", ".join(BENCHMARKS)
    )
    parser.add_argument(
        "--store", action="store_true", help="write the figures to evaluation/results/bench.json"
    )
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    seconds = measure(options.names or list(BENCHMARKS), Scale(repeats=options.repeats))
    kept = json.loads(STORED.read_text()) if STORED.exists() else {"commit": "none", "seconds": {}}
    print(f"processor seconds, one thread, medians of {options.repeats}; stored: commit {kept['commit']}\n")
    print(table(seconds, kept["seconds"]))
    if options.store:
        store(seconds)


if __name__ == "__main__":
    main()
