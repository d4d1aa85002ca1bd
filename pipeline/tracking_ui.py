"""MLflow's web interface on a store, as a server of this machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress

from pipeline.errors import TrackingError
from pipeline.tracking_client import ENVIRONMENT
from pipeline.tracking_uri import artifact_root, is_server, mask_uri, reason, resolve_store, sqlite_path

_STOP_SECONDS = 15.0


def ui_address(host: str = "127.0.0.1", port: int = 5000) -> str:
    """Where `serve_ui` answers, opened at the view for model training; MLflow starts in the one for language models."""
    return f"http://{host}:{port}/#/experiments?workflowType=machine_learning"


def serve_ui(uri: str, host: str = "127.0.0.1", port: int = 5000) -> int:
    """Run MLflow's web interface on a store until it is stopped; Ctrl-C is a clean end.

    Args:
        uri: the store, as for `start_run`.
        host: address to listen at; the default answers this machine only.
        port: port to listen at.

    Returns:
        The exit code of the server, 0 after Ctrl-C.

    Raises:
        TrackingError: the port is taken, there is no store at ``uri``, or the store is a server itself.
    """
    store = resolve_store(uri)
    if is_server(store):
        raise TrackingError(f"{mask_uri(store)} is a server with its own interface; open that address in a browser.")
    database = sqlite_path(store)
    if database is not None and not database.is_file():
        raise TrackingError(
            f"No MLflow store at {database}; train a model first, or name the store that holds the runs."
        )
    _check_port(host, port)
    # The URI travels in the environment: the command line of a process can be read by every user of the machine.
    environment = {
        **ENVIRONMENT,
        "PYTHONWARNINGS": "ignore",  # deprecations inside MLflow, which whoever opens the interface cannot mend
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": store,
        "MLFLOW_REGISTRY_STORE_URI": store,
        "MLFLOW_DEFAULT_ARTIFACT_ROOT": artifact_root(store).as_uri(),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # a job scheduler that hepatag has no use for
    }
    command = [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1"]
    command += ["--no-serve-artifacts", "--uvicorn-opts", "--no-access-log"]
    return _run_until_stopped(command, environment)


def _run_until_stopped(command: list[str], environment: Mapping[str, str]) -> int:
    """Run a server in a session of its own, so that stopping it reaches its workers too, and once only."""

    def interrupt(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        return process.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        signal.signal(signal.SIGTERM, previous)
        _stop_group(process)


def _stop_group(process: subprocess.Popen[bytes]) -> None:
    for signum in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signum)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_STOP_SECONDS)
            return


def _check_port(host: str, port: int) -> None:
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except (OSError, OverflowError) as error:
        raise TrackingError(
            f"Cannot listen at {host}:{port} ({reason(error)}); choose another port, such as --port {port + 1}."
        ) from error
