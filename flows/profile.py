"""The flow that measures a latency table on the machine that its worker runs on.

For hardware that is not here: a checkout there, with a worker of a work pool, and `prefect deployment run
profile/on-target --param target=openvino/cpu`. The table comes to lie in that checkout's `latency/`, to copy back.
"""

# Prefect reads its settings when it is imported.
# ruff: noqa: E402
import subprocess
import sys

from flows import environment

environment.prepare()

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact

from act.errors import USER_ERROR_EXIT_CODE, InputError


@flow(name="profile")
def profile(target: str, threads: list[int] | None = None, networks: int | None = None) -> str:
    """Measure this machine's table, as `python -m act.strategy.profile` does; what is in it already is kept.

    Returns what the command says in the end: the path of the table, and how well it predicts.

    Args:
        target: such as `openvino/cpu`.
        threads: numbers of threads; 1 when left out.
        networks: how many at most; the command's default when left out.

    Raises:
        InputError: the arguments are wrong, or the engine is not here.
    """
    command = [sys.executable, "-m", "act.strategy.profile", "--target", target]
    command += ["--threads", *map(str, threads)] if threads else []
    command += ["--networks", str(networks)] if networks else []
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode == USER_ERROR_EXIT_CODE:
        raise InputError(done.stderr.strip().splitlines()[-1].removeprefix("error: "))
    if done.returncode != 0:
        raise RuntimeError(f"the profile ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    told = done.stdout.strip()
    if environment.has_server():
        get_run_logger().info(told)
        create_markdown_artifact(key="profile", markdown=told, description=f"the latency table of {target}")
    return told
