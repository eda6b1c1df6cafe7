"""Try a model package in a separate process before anything else loads it.

Anybody with write access to the registry can store a model that takes any time and memory, or crashes. The trial finds
such a model without risk to a server.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NoReturn, cast

from lab import card as cards
from lab import package
from lab.errors import LabError

# Limits of a trial: processor time, elapsed time, and memory in addition to the interpreter's. Two workers that serve
# the largest allowed model fit into the API's container.
CPU_SECONDS, WALL_SECONDS, MEMORY_BYTES = 10, 60, 128 * 2**20
SOUND, REMEDY = "sound", "promote another version"
_TOO_LARGE = f"the model takes more than {MEMORY_BYTES / 2**20:.0f} MB of memory (fewer or shallower trees take less)"
# The trial's output is read up to this number of bytes.
_MOST_SAID = 2_000
# Digests of the packages that passed the trial in this process: the same bytes are not tried again.
_sound: deque[bytes] = deque(maxlen=64)


def verify(name: str, card_text: bytes, model: bytes, lock: Path | None = None) -> cards.Card:
    """Return the card; raise LabError unless this is a sound package of the registered model `name`.

    A package is sound when its card is valid, the model has the hash in the card and uses allowed operators only, and
    the model gives the probabilities of the card's self-test within the limits of time and memory.

    The model is tried in a separate process with limits of time and memory and without the caller's environment. No
    package can therefore stop the caller or use up its memory. A trial takes half a second, and at most WALL_SECONDS.
    Callers that pass the same `lock` file take turns, so that only one trial uses memory at a time.
    """
    card = cards.decode(card_text)
    if card.problem != name:
        raise LabError(f"the package belongs to the model {card.problem}, not to {name}", REMEDY)
    cards.check_size(cards.MODEL_FILE, model, cards.MODEL_BYTES)
    cards.check_hash(card, model)
    digest = hashlib.sha256(card_text).digest()  # the card holds the model's digest
    if digest not in _sound:
        with _turn(lock):
            code, reason = _try(card_text, model)
        if (code, reason) != (0, SOUND):
            raise LabError(reason if code == 1 and reason else _ending(code), REMEDY)
        _sound.append(digest)
    return card


@contextlib.contextmanager
def _turn(lock: Path | None) -> Iterator[None]:
    """Wait at most WALL_SECONDS for the trials of other processes; do not wait if the file cannot be opened."""
    with contextlib.ExitStack() as stack:
        if lock:
            with contextlib.suppress(OSError):
                lock.parent.mkdir(parents=True, exist_ok=True)
                _take(stack.enter_context(lock.open("ab")).fileno())
        yield


def _take(file: int) -> None:
    end = time.monotonic() + WALL_SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(BlockingIOError):
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(0.05)
    return None


def _try(card_text: bytes, model: bytes) -> tuple[int, str]:
    """Check the package in a new process; return its exit status and its output."""
    command = [sys.executable, "-P", "-m", "lab.trial", str(len(card_text)), str(len(model))]
    environment = {
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "ORT_DISABLE_TELEMETRY": "1",
        "OPENBLAS_NUM_THREADS": "1",
        # Each further arena of malloc reserves 64 MB of address space, which would count towards the limit.
        "MALLOC_ARENA_MAX": "1",
    }
    pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=nothing, cwd="/", env=environment) as trial:
        stdin, stdout = cast(IO[bytes], trial.stdin), cast(IO[bytes], trial.stdout)
        end = threading.Timer(WALL_SECONDS, trial.kill)
        end.start()
        try:
            with contextlib.suppress(BrokenPipeError):
                stdin.write(card_text)
                stdin.write(model)
                stdin.close()
            output = stdout.read(_MOST_SAID)
            if len(output) == _MOST_SAID:
                trial.kill()
            return trial.wait(), output.decode(errors="replace")
        finally:
            end.cancel()
            trial.kill()


def _ending(code: int) -> str:
    if -code in (signal.SIGXCPU, signal.SIGALRM, signal.SIGKILL):
        return f"the model takes more than {CPU_SECONDS} s, or more memory than there is"
    if code < 0:
        return f"the model ends the process that tries it, by signal {-code}"
    return f"the model ends the process that tries it, with status {code}"


def _limit() -> None:
    """Limit this process, so that the model cannot harm the machine."""
    os.nice(10)
    limits = {
        resource.RLIMIT_AS: _mapped() + MEMORY_BYTES,
        resource.RLIMIT_CPU: CPU_SECONDS,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
    }
    for kind, value in limits.items():
        with contextlib.suppress(ValueError, OSError):  # the present limit is lower, or the system has no such limit
            resource.setrlimit(kind, (value, value))
    # The parent kills this process after WALL_SECONDS; if the parent has ended, the alarm does.
    signal.alarm(WALL_SECONDS)
    with contextlib.suppress(OSError):  # when the machine's memory runs out, the kernel kills this process first
        Path("/proc/self/oom_score_adj").write_text("1000")


def _resident() -> int:
    """The most bytes that this process has held in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _mapped() -> int:
    """Bytes of address space that this process has mapped; a value beyond any limit on macOS, which has no /proc."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return 2**40


def main() -> NoReturn:
    """`python -m lab.trial CARD_BYTES MODEL_BYTES`: check the package on stdin; say why it is not sound."""
    from lab import operators  # noqa: F401  # imported before memory is limited, for it is no part of the model

    _limit()
    card_text, model = (sys.stdin.buffer.read(int(size)) for size in sys.argv[1:])
    reason = ""

    def run() -> None:
        nonlocal reason
        reason = _verdict(card_text, model)

    # Deep trees need stack. The API's threads must have more of it than the trial.
    threading.stack_size(2 * 2**20)
    thread = threading.Thread(target=run)
    thread.start()
    most = _resident() + MEMORY_BYTES
    while thread.is_alive():
        thread.join(0.05)
        if _resident() > most:  # for macOS, which does not enforce RLIMIT_AS
            reason = _TOO_LARGE
            break
    sys.stdout.write(reason[: _MOST_SAID // 4])
    sys.stdout.flush()
    os._exit(reason != SOUND)  # ends the process even while the thread runs


def _verdict(card_text: bytes, model: bytes) -> str:
    try:
        package.check(cards.decode(card_text), model)
    except LabError as error:
        fault = error.message
    except MemoryError:
        fault = "bad_alloc"
    except Exception as error:  # any exception means that the package is not sound
        fault = f"the package cannot be tried: {error!r}"
    else:
        return SOUND
    # ONNX Runtime's messages about a lack of memory contain one of these texts.
    if "bad_alloc" in fault or "llocate memory" in fault:
        return _TOO_LARGE
    return fault


if __name__ == "__main__":
    main()
