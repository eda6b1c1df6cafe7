"""Use a running Dask cluster, after checking that its workers have this process's trainer code and packages."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import joblib

from lab.errors import LabError
from trainer import lineage

if TYPE_CHECKING:
    from distributed import Client

# The hash is computed on import and is therefore that of the loaded code: files may change while the process runs.
CODE_SHA256 = lineage.code_sha256()
WAIT_SECONDS = 30
_RESTART = (
    "restart these workers with the code and the packages of this clone; in containers "
    "`COMPOSE_PROFILES=dask make up` builds their image anew and restarts them"
)


@contextmanager
def backend(dask_address: str) -> Iterator[None]:
    """Run joblib on the Dask cluster at this address, or locally when the address is empty.

    Raises LabError when the cluster does not answer, has no workers, or has workers with other trainer code or other
    packages than this process, because the card would then name code that did not make the model.
    """
    if not dask_address:
        yield
        return
    from distributed import Client

    try:
        client = Client(dask_address, timeout="10s", set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise LabError(
            f"no Dask scheduler answers at {dask_address}: {error}",
            "start the cluster, or unset DASK_SCHEDULER_ADDRESS to search on this machine",
        ) from error
    with client, joblib.parallel_config("dask", client=client, wait_for_workers_timeout=WAIT_SECONDS):
        _check_workers(client, dask_address)
        yield


def loaded() -> tuple[str, dict[str, str]]:
    """The hash of the trainer code that this process has loaded, and the versions of its packages."""
    return CODE_SHA256, lineage.packages()


def check_code(code_sha256: str) -> None:
    """Raise LabError unless this process has loaded that code: a worker may join after `_check_workers` ran."""
    if code_sha256 != CODE_SHA256:
        raise LabError(
            f"process {os.getpid()} on {socket.gethostname()} has other trainer code than the training that uses it",
            "do not change the code while a training runs; restart older Dask workers, then train again",
        )


def _check_workers(client: Client, address: str) -> None:
    try:
        client.wait_for_workers(1, timeout=WAIT_SECONDS)
        answers = client.run(loaded, on_error="return", callback_timeout=WAIT_SECONDS)
    except TimeoutError as error:
        raise LabError(
            f"the Dask cluster at {address} has no worker that answers within {WAIT_SECONDS} s",
            "start workers, or unset DASK_SCHEDULER_ADDRESS to search on this machine",
        ) from error
    faults = [f"{worker}: {fault}" for worker, answer in sorted(answers.items()) if (fault := _fault(answer))]
    if faults:
        raise LabError(
            "\n  ".join(
                [f"{len(faults)} of {len(answers)} Dask workers at {address} differ from this process:", *faults]
            ),
            _RESTART,
        )


def _fault(answer: object) -> str:
    """The fault of a worker, or an empty string. `answer` is the result of `loaded` on the worker, or its exception."""
    if not isinstance(answer, tuple):
        return f"other trainer code, or none ({str(answer)[:100]})"
    code, packages = answer
    if code != CODE_SHA256:
        return f"other trainer code (hash {code[:12]}…, here {CODE_SHA256[:12]}…)"
    ours = lineage.packages()
    return ", ".join(
        f"{name} {packages.get(name)}, here {ours[name]}" for name in ours if packages.get(name) != ours[name]
    )
