"""`python -m act.strategy.profile --target ENGINE/cpu`: measure the table that a latency model is learned from.

To be run on the machine that the models shall run on, with nothing else at work there. The table is one file, which can
be copied; a profile that is stopped goes on where it was, and what was measured is never measured again.
"""

import argparse
import os
import tempfile
import time
from collections import defaultdict
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from act.engines.base import RuntimePrecision
from act.engines.process import EngineFailure, EngineProcess
from act.engines.spec import all_specs
from act.errors import InputError, exit_on_input_error
from act.strategy.latency.model import Measured, cross_predict
from act.strategy.latency.table import FOLDER, PRECISIONS, Header, Table, file_name

NETWORKS, MINUTES = 120, 12.0
# Of the networks; another where the rules by which they are drawn are others.
SEED = 3
# Networks that are measured in turn.
TOGETHER = 8
LIMIT_SECONDS = 24 * 3600.0


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(
        prog="python -m act.strategy.profile", description="Measure the table that a latency model is learned from."
    )
    parser.add_argument("--target", required=True, help=f"one of {', '.join(_targets())}")
    parser.add_argument("--threads", type=int, nargs="+", default=[1], help="numbers of threads (default: 1)")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, help="(default: all that the engine has here)")
    parser.add_argument("--networks", type=int, default=NETWORKS, help="how many at most (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="how long at most (default: %(default)s)")
    parser.add_argument("--table", type=Path, help=f"the file (default: one of this machine's own in {FOLDER}/)")
    arguments = parser.parse_args()
    with exit_on_input_error():
        engine = _engine(arguments.target)
        for number in arguments.threads:
            if not 1 <= number <= (os.cpu_count() or 1):
                raise InputError(f"--threads: {number} is not between 1 and the {os.cpu_count()} cores of this machine")
        if arguments.networks < 1 or not arguments.minutes > 0:
            raise InputError("--networks and --minutes must be above 0")
        seconds = arguments.minutes * 60
        profile(engine, arguments.table, arguments.threads, arguments.precisions, arguments.networks, seconds)


def _targets() -> list[str]:
    """List the engines that tell how long each kernel takes."""
    return [f"{spec.name}/cpu" for spec in all_specs() if spec.tells_times]


def _engine(target: str) -> str:
    name = target.partition("/")[0]
    if target not in _targets():
        known = name in [spec.name for spec in all_specs()]
        why = "tells nothing of its kernels, so that they cannot be measured" if known else "is no engine"
        raise InputError(f"--target: {target!r}: {name} {why}; allowed are {', '.join(_targets())}")
    return name


def profile(
    engine: str, path: Path | None, threads: list[int], precisions: list[str] | None, networks: int, seconds: float
) -> Table:
    """Measure until so many networks are in the table, or the time is up; what it has already is not measured again.

    Without a path it is this machine's own table in `FOLDER`. `InputError` where the engine is not here, or the table
    was measured elsewhere.
    """
    deadline = time.monotonic() + seconds
    with EngineProcess(engine, Path(), "fp32") as process:
        try:
            version, offered = process.offer()
        except EngineFailure as failure:
            raise InputError(f"--target {engine}/cpu: {failure}") from None
    wanted = [name for name in offered if name in (precisions or PRECISIONS)]
    if not wanted:
        raise InputError(f"--precisions: {engine} has none of {', '.join(precisions or [])} on this machine")
    header = Header.here(engine, version)
    table = Table.open(path or FOLDER / file_name(header), header)
    ways = [(name, number) for number in dict.fromkeys(threads) for name in wanted]
    added = _fill(table, ways, networks, deadline)
    for number in table.threads:
        _tell(table, number, added)
    return table


def _fill(table: Table, ways: list[tuple[RuntimePrecision, int]], networks: int, deadline: float) -> bool:
    """Measure what is missing; tell whether any row was added."""
    # Paddle takes seconds to import, and wrong arguments are told before.
    from act.engines.writer import ExportedVariants, export_variants
    from act.program.blocks import FEED, build
    from act.strategy.profile.measure import Way, measure
    from act.strategy.profile.networks import planned_networks

    engine = table.header.engine
    done = {row.key for row in table.rows}
    by_name: dict[str, list[Measured]] = defaultdict(list)
    for row in table.rows:
        if row.failure is None:
            by_name[row.measured.name].append(row.measured)
    start = partial(EngineProcess, engine, time_limit_seconds=LIMIT_SECONDS)
    drawn = planned_networks(networks, SEED, by_name)
    with tqdm(total=networks, desc=f"profile {engine}/cpu", unit="network") as bar:
        while group := list(islice(drawn, TOGETHER)):
            missing = {each.name: [way for way in ways if (each.name, *way) not in done] for each in group}
            if any(missing.values()) and time.monotonic() > deadline:
                break
            everything: list[tuple[ExportedVariants, Way]] = []
            with tempfile.TemporaryDirectory() as folder:
                for network in group:
                    if wanted := missing[network.name]:
                        batch = {FEED: np.random.default_rng(0).normal(size=network.shape).astype(np.float32)}
                        model = build(network.shape, network.blocks)
                        kinds = list(dict.fromkeys(precision for precision, _ in wanted))
                        own = Path(tempfile.mkdtemp(dir=folder))
                        written = export_variants(network.name, model, batch, engine, kinds, own)
                        model.discard()
                        everything += [(written, way) for way in wanted]
                rows = measure(everything, start)
            for row in rows:
                table.add(row)
                if row.failure is None:
                    by_name[row.measured.name].append(row.measured)
            bar.update(len(group))
    return len(table.rows) > len(done)


def _tell(table: Table, threads: int, added: bool) -> None:
    """Tell how well the latency of networks that were left out is predicted."""
    measured = table.measured(threads)
    if added or threads not in table.noted:
        errors = [float(np.log(network.seconds / predicted.seconds)) for network, predicted in cross_predict(measured)]
        table.note(threads, errors)
    names = {each.name for each in measured}
    kernels = {kernel for each in measured for kernel, _ in each.kernels}
    missed = np.abs(np.expm1(table.noted[threads]))
    told = f"; left out, half of them are predicted within {np.median(missed):.1%}" if len(missed) else ""
    print(f"{table.path}: {threads} thread(s): {len(names)} networks, {len(kernels)} different kernels{told}")


if __name__ == "__main__":
    main()
