"""`python -m api.workers`: Granian with its usual flags, changed so that the port stays open when workers are killed.

- The parent process also holds the socket of each worker, so that clients wait while a worker is replaced.
- A worker that was killed is always replaced. Granian itself gives up when a worker dies twice within 5.5 s; this
  server does so only when the worker exited by itself, as one does that cannot start.
- A worker exits when its parent process is gone. Otherwise it would continue to answer beside the workers of a new
  parent.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

from granian import cli
from granian._internal import load_target
from granian.server.mp import MPServer, WorkerProcess

LOOK_SECONDS = 0.2
# Time for an orphaned worker to finish the requests that it has begun.
GRACE_SECONDS = 5.0


class Server(MPServer):
    """Granian's server with worker processes; the methods here override those of Granian 2.8."""

    def serve(self, *_: Any, **__: Any) -> None:
        super().serve(target_loader=partial(_load, wd=self.working_dir, factory=self.factory))

    def _init_shared_socket(self) -> None:
        super()._init_shared_socket()  # type: ignore[no-untyped-call]
        # By default each worker opens its own socket on Linux, and the clients that wait at this socket are lost when
        # the worker dies. A single shared socket is no better, because the first worker that wakes up takes all
        # connections.
        spec: Any = self._ssp
        own = spec is not None and multiprocessing.get_start_method() == "fork"
        self._sockets = [spec.build() for _ in range(self.workers)] if own else []

    def _spawn_worker(self, idx: int, *words: Any, **options: Any) -> WorkerProcess:
        if self._sockets:
            self._ssp, self._shd = None, self._sockets[idx]
        return super()._spawn_worker(idx, *words, **options)

    def _respawn_workers(self, workers: list[int], *words: Any, **options: Any) -> None:
        if not options:  # called because workers died, perhaps twice for the same worker, and not on request
            workers = sorted({*workers} & self._dead())
        killed = [index for index in workers if (self.wrks[index].inner.exitcode or 0) < 0]
        super()._respawn_workers(workers, *words, **options)
        for index in killed:
            self.respawned_wrks.pop(index, None)
        # Granian may miss a worker that dies while it handles the death of another.
        if dead := self._dead():
            self.interrupt_children = sorted({*self.interrupt_children, *dead})
            self.main_loop_interrupt.set()

    def _dead(self) -> set[int]:
        return {index for index, worker in enumerate(self.wrks) if not worker.inner.is_alive()}


def _load(target: str, wd: Path | None, factory: bool) -> Any:
    """Load the application; Granian calls this at the start of each worker, so it also starts the orphan check."""
    first = multiprocessing.parent_process()
    if first is not None and first.pid is not None:
        threading.Thread(target=_end_after, args=(first.pid,), name="orphan", daemon=True).start()
    return load_target(target, wd=wd, factory=factory)


def _end_after(first: int) -> None:
    """End this worker when the process `first` is no longer its parent."""
    while os.getppid() == first:
        time.sleep(LOOK_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    cli.Server = Server  # type: ignore[attr-defined]
    cli.entrypoint()  # type: ignore[no-untyped-call]
