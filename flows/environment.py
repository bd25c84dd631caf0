"""Settings of Prefect and DVC that must stand in the environment before either is imported.

No telemetry leaves the machine, Prefect keeps its files in the checkout, and without a server its own log stays
silent: the stages' output is what the user wants to see.
"""

import os
from pathlib import Path

_DEFAULTS = {
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
    "PREFECT_HOME": str(Path.cwd() / ".prefect"),
}
_THIS_MACHINE = ("127.0.0.1", "localhost")


def prepare() -> None:
    """Set what the user has not set."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    if not has_server():
        os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
        os.environ.setdefault("PREFECT_LOGGING_TO_API_ENABLED", "false")
    # A proxy of the user's knows nothing of a server on this machine.
    for name in ("NO_PROXY", "no_proxy"):
        hosts = [host for host in os.environ.get(name, "").split(",") if host]
        os.environ[name] = ",".join(dict.fromkeys([*hosts, *_THIS_MACHINE]))


def has_server() -> bool:
    """Tell whether the user named a Prefect server."""
    return bool(os.environ.get("PREFECT_API_URL"))
