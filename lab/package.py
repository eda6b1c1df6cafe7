"""A model package: tried in a process of its own, then loaded and scored.

Whoever may write to the registry says what a model computes. `verify` finds out what it costs before a server bears it.
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
from typing import IO, cast

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from lab import card as cards
from lab.errors import LabError

# What a model may take: of a processor's and of any time to be tried, of memory beside what the interpreter takes. Two
# workers with the largest one have room in the API's container.
CPU_SECONDS, WALL_SECONDS, MEMORY_BYTES = 10, 60, 128 * 2**20
# More rows are scored in parts, so that a large batch takes no more memory than this many rows.
PART_ROWS = 500
SOUND = "sound"
# Bytes of the trial's answer that are read.
_MOST_SAID = 2_000
_REMEDY = "promote another version"
# Digests of packages that this process has found sound: the same bytes are not tried again.
_sound: deque[bytes] = deque(maxlen=64)


class ModelError(LabError):
    """The model gives no probability where it must."""


def open_session(model: bytes) -> onnxruntime.InferenceSession:
    """Load a model; raises whatever ONNX Runtime does."""
    options = onnxruntime.SessionOptions()
    # One row is far too little work to share out.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # Otherwise the bytes say whether they are ONNX, and what was inspected as ONNX could be run as something else.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def score(session: onnxruntime.InferenceSession, rows: NDArray[np.float32]) -> list[float]:
    """The positive class's probability for each of `rows`, shape (n, features), NaN for missing.

    Raises ModelError unless there are n, each within 0 and 1; a float32's rounding beyond them is cut off.
    """
    found: list[float] = []
    for start in range(0, len(rows), PART_ROWS):
        part = rows[start : start + PART_ROWS]
        try:
            scores = session.run(["probabilities"], {"features": part})[0]
        except Exception as error:  # the runtime raises its own kinds, not all of them documented
            raise ModelError(f"the model fails: {error}"[:500], _REMEDY) from error
        if scores.shape != (len(part), 2):
            raise ModelError(f"the model answers {len(part)} rows in the shape {scores.shape}", _REMEDY)
        found += scores[:, 1].tolist()
    if all(0.0 <= probability <= 1.0 for probability in found):
        return found
    return [_cut(probability) for probability in found]


def _cut(probability: float) -> float:
    if not -cards.TOLERANCE <= probability <= 1 + cards.TOLERANCE:
        raise ModelError(f"the model gives {probability} as a probability", _REMEDY)
    return min(max(probability, 0.0), 1.0)


def check_self_test(session: onnxruntime.InferenceSession, card: cards.Card) -> None:
    """Raise LabError unless the model gives the card's own rows the card's own probabilities."""
    _check_scores(session, _rows(card.self_test.rows), card.self_test.probabilities)


def check(name: str, card_text: bytes, model: bytes) -> None:
    """Raise LabError unless this is a sound package of the registered model `name`.

    Loads and runs the model, which may take any time and memory: see `verify`.
    """
    from lab.operators import inspect  # what it needs is for the trial only

    card = cards.decode(card_text)
    if card.problem != name:
        raise LabError(f"the package is one of {card.problem}, and not of {name}", _REMEDY)
    cards.check_hash(card, model)
    inspect(model)
    try:
        session = open_session(model)
    except Exception as error:  # the runtime raises its own kinds, not all of them documented
        raise LabError(f"the model does not run: {error}"[:500], _REMEDY) from error
    _check_interface(session, len(card.features))
    check_self_test(session, card)
    score(session, _corners(card))
    rows, probabilities = card.self_test.rows, card.self_test.probabilities
    _check_scores(session, _rows(rows[:1]), probabilities[:1])
    # Not a multiple of PART_ROWS: there are two sizes of parts.
    count = cards.BATCH_ROWS - 1
    _check_scores(
        session, np.resize(_rows(rows), (count, len(card.features))), np.resize(probabilities, count).tolist()
    )


def _check_interface(session: onnxruntime.InferenceSession, features: int) -> None:
    inputs = [(place.name, place.type, place.shape[1:]) for place in session.get_inputs()]
    if inputs != [("features", "tensor(float)", [features])] or isinstance(session.get_inputs()[0].shape[0], int):
        raise LabError(f"the model's input is not float32 of any number of rows of {features} features", _REMEDY)
    if ("probabilities", "tensor(float)") not in [(place.name, place.type) for place in session.get_outputs()]:
        raise LabError("the model has no output `probabilities` of float32", _REMEDY)


def _check_scores(session: onnxruntime.InferenceSession, rows: NDArray[np.float32], wanted: list[float]) -> None:
    worst = float(np.abs(np.array(score(session, rows)) - np.array(wanted)).max())
    if not worst <= cards.TOLERANCE:
        raise LabError(f"the model fails its self-test: a probability is off by {worst:.2g}", _REMEDY)


def _rows(rows: list[list[float | None]]) -> NDArray[np.float32]:
    return np.array([[np.nan if value is None else value for value in row] for row in rows], np.float32)


def _corners(card: cards.Card) -> NDArray[np.float32]:
    """The least record, the greatest, and one that misses all it may."""
    least, most = [f.min for f in card.features], [f.max for f in card.features]
    return _rows([[*least], [*most], [None if f.nullable else f.min for f in card.features]])


def verify(name: str, card_text: bytes, model: bytes, lock: Path | None = None) -> None:
    """Raise LabError unless this is a sound package of the registered model `name`.

    It is tried in a process of its own, with limits of time and memory and none of this process's environment: no
    package can stop or fill the process that asks. Takes half a second, and at most WALL_SECONDS. Processes that name
    the same `lock` take turns, so that the memory is needed once.
    """
    cards.check_size(cards.CARD_FILE, card_text, cards.CARD_BYTES)
    cards.check_size(cards.MODEL_FILE, model, cards.MODEL_BYTES)
    digest = hashlib.sha256(b"%b %d " % (name.encode(), len(card_text)) + card_text)
    digest.update(model)
    if digest.digest() in _sound:
        return
    with _turn(lock):
        code, said = _try(name, card_text, model)
    if (code, said) != (0, SOUND):
        raise LabError(said if code == 1 and said else _ending(code), _REMEDY)
    _sound.append(digest.digest())


@contextlib.contextmanager
def _turn(lock: Path | None) -> Iterator[None]:
    """Wait for the trials of others to end; after WALL_SECONDS, or when the file cannot be written, go on at once."""
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


def _try(name: str, card_text: bytes, model: bytes) -> tuple[int, str]:
    """Run `check` in a new process; give its exit status and what it said."""
    command = [sys.executable, "-P", "-m", "lab.package", name, str(len(card_text)), str(len(model))]
    environment = {
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "ORT_DISABLE_TELEMETRY": "1",
        "OPENBLAS_NUM_THREADS": "1",
        # Each arena reserves 64 MB, which would count as used.
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
            said = stdout.read(_MOST_SAID)
            if len(said) == _MOST_SAID:
                trial.kill()
            return trial.wait(), said.decode(errors="replace")
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
    """Bind this process: what it tries must not harm the machine."""
    os.nice(10)
    limits = {
        resource.RLIMIT_AS: _mapped() + MEMORY_BYTES,
        resource.RLIMIT_CPU: CPU_SECONDS,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
    }
    for kind, value in limits.items():
        with contextlib.suppress(ValueError, OSError):  # it is lower already, or the system does not know it
            resource.setrlimit(kind, (value, value))
    # Also when the one who asked is no longer there to end it.
    signal.alarm(WALL_SECONDS)
    with contextlib.suppress(OSError):  # when the machine's memory runs out, this process goes first
        Path("/proc/self/oom_score_adj").write_text("1000")


def _mapped() -> int:
    """Bytes that this process has mapped; as good as no limit where the system does not tell (macOS)."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return 2**40


def main() -> int:
    """`python -m lab.package NAME CARD_BYTES MODEL_BYTES`: `check` what stands on stdin; say why it is not sound."""
    from lab import operators  # noqa: F401  # imported before memory is limited, for it is no part of the model

    _limit()
    name, sizes = sys.argv[1], [int(size) for size in sys.argv[2:]]
    card_text, model = (sys.stdin.buffer.read(size) for size in sizes)
    said = ""

    def run() -> None:
        nonlocal said
        said = _verdict(name, card_text, model)

    # A thread has less of a stack than the process, and the API loads its models in one.
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    sys.stdout.write(said[: _MOST_SAID // 4])
    return int(said != SOUND)


def _verdict(name: str, card_text: bytes, model: bytes) -> str:
    try:
        check(name, card_text, model)
    except LabError as error:
        fault = error.message
    except MemoryError:
        fault = "bad_alloc"
    except Exception as error:  # whatever it is, the package is not sound
        fault = f"the package cannot be tried: {error!r}"
    else:
        return SOUND
    # So ONNX Runtime calls it, in the middle of a message.
    if "bad_alloc" in fault or "llocate memory" in fault:
        return f"the model takes more than {MEMORY_BYTES / 2**20:.0f} MB of memory"
    return fault


if __name__ == "__main__":
    sys.exit(main())
