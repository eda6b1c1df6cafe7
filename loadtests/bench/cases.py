"""The cases: each server with its command, the form of its requests, and the place of the probability in its answer."""

from __future__ import annotations

import configparser
import itertools
import os
import re
import secrets
import shlex
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from lab.errors import LabError
from lab.settings import ROOT
from loadtests.bench.model import LINEAR, NEIGHBOURS, Models
from loadtests.bench.process import WORKERS

BIN = Path(sysconfig.get_path("scripts"))
BATCH = 1_000
BATCHES = 8
LOCAL = ["--host", "127.0.0.1", "--port", "PORT"]
APPS = "loadtests.bench.apps"
NO_DELAY = ROOT / "loadtests" / "bench" / "nodelay"
# The benchmark sets a key, because all features of the API are on.
KEY = secrets.token_hex(20)
# No server listens at this address. The API serves the stored model, and continues to ask the registry.
NO_REGISTRY = "http://127.0.0.1:9"

Reader = Callable[[Any], list[float]]


@dataclass(frozen=True)
class Case:
    """A server to measure. `command` has PORT for the port. `probabilities` is None for a server without a model."""

    key: str
    title: str
    command: list[str]
    bodies: Path
    probabilities: Reader | None
    environment: dict[str, str] = field(default_factory=dict)
    path: str = "/predict"
    model: str = LINEAR
    rows: int = 1

    def at(self, port: int) -> list[str]:
        return [word.replace("PORT", str(port)) for word in self.command]


def cases(models: Models, other: Path) -> list[Case]:
    """All cases; `other` is the environment with the other servers."""
    bodies = _write_bodies(models)
    fastapi, mlflow = _fastapi(models, bodies, other), _mlflow(models, bodies)
    return [
        *_own(models, bodies, other),
        _flask(models, bodies, other),
        _bentoml(models, bodies, other),
        fastapi,
        _without_wait(fastapi),
        mlflow,
        _without_wait(mlflow),
    ]


def _own(models: Models, bodies: dict[str, Path], other: Path) -> list[Case]:
    granian, record, linear = _granian(), bodies["record"], _ours(models, LINEAR)
    neighbours = _ours(models, NEIGHBOURS)
    # These servers run without api/workers.py, because that module imports the API.
    plain = [str(BIN / "granian"), *granian[granian.index("--interface") : -1]]
    empty, bare = ([*plain, f"{APPS}.empty:{target}"] for target in ("server", "bare"))
    threads = [plain[0], *("--interface", "wsgi", "--factory", "--blocking-threads", "32", "--workers", str(WORKERS))]
    threads += [*LOCAL, "--no-ws", "--log-config", "api/logging.json", "api:create_app"]
    idle = [*threads[:-1], f"{APPS}.empty:create_app"]
    gunicorn = [*_gunicorn(other), "--worker-class", "gthread", "--threads", "8", "api:create_app()"]
    batch = Case(
        "batch",
        f"this API, batches of {BATCH:,}",
        granian,
        bodies["batch"],
        _many,
        linear,
        "/predict/batch",
        rows=BATCH,
    )
    return [
        Case("ours", "this API (Granian)", granian, record, _single, linear),
        Case("empty", "an empty Flask handler (Granian)", empty, record, None, linear),
        Case("bare", "a handler without Flask (Granian)", bare, record, None, linear),
        Case("empty-wsgi", "an empty Flask handler (Granian, WSGI)", idle, record, None, linear),
        Case("wsgi", "this API (Granian, WSGI)", threads, record, _single, linear),
        Case("gunicorn", "this API under gunicorn (gthread)", gunicorn, record, _single, linear),
        Case("knn", "this API, k-nearest neighbours", granian, record, _single, neighbours, model=NEIGHBOURS),
        batch,
    ]


def _flask(models: Models, bodies: dict[str, Path], other: Path) -> Case:
    command = [*_gunicorn(other), f"{APPS}.plain_flask:app"]
    return Case("flask", "Flask + gunicorn + scikit-learn", command, bodies["record"], _single, _sklearn(models))


def _bentoml(models: Models, bodies: dict[str, Path], other: Path) -> Case:
    command = [str(other / "bin" / "bentoml"), "serve", f"{APPS}.bento:Classifier", "--working-dir", str(ROOT), *LOCAL]
    home = {"BENTOML_HOME": str(models.folder / "bentoml"), "BENTOML_DO_NOT_TRACK": "True"}
    return Case("bentoml", "BentoML + scikit-learn", command, bodies["rows"], list, _sklearn(models) | home)


def _fastapi(models: Models, bodies: dict[str, Path], other: Path) -> Case:
    command = [str(other / "bin" / "uvicorn"), f"{APPS}.fast:app", "--workers", str(WORKERS), "--no-access-log", *LOCAL]
    return Case("fastapi", "FastAPI + uvicorn + scikit-learn", command, bodies["record"], _single, _sklearn(models))


def _mlflow(models: Models, bodies: dict[str, Path]) -> Case:
    command = [str(BIN / "mlflow"), "models", "serve", "-m", str(models.mlflow), "--env-manager", "local"]
    # MLflow starts `uvicorn`, which it searches on the PATH.
    environment = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONPATH": str(ROOT),
    }
    command += ["--workers", str(WORKERS), *LOCAL]
    return Case(
        "mlflow", "MLflow's scoring server", command, bodies["split"], _second_class, environment, "/invocations"
    )


def _without_wait(case: Case) -> Case:
    """The same server with Nagle's algorithm off; loadtests/bench/nodelay gives the reason."""
    path = f"{NO_DELAY}{os.pathsep}{case.environment['PYTHONPATH']}"
    environment = case.environment | {"PYTHONPATH": path}
    return replace(case, key=f"{case.key}-now", title=f"{case.title}, no 40 ms wait", environment=environment)


def _gunicorn(other: Path) -> list[str]:
    return [str(other / "bin" / "gunicorn"), "--workers", str(WORKERS), "--bind", "127.0.0.1:PORT"]


def _sklearn(models: Models) -> dict[str, str]:
    return {"BENCH_PIPELINE": str(models.pipeline), "PYTHONPATH": str(ROOT)}


def _many(answer: Any) -> list[float]:
    return [each["probability"] for each in answer["predictions"]]


def _second_class(answer: Any) -> list[float]:
    return [answer["predictions"][0][1]]


def _single(answer: Any) -> list[float]:
    return [answer["probability"]]


def _granian() -> list[str]:
    """The command of the API in services/supervisord.conf, with two workers."""
    config = configparser.ConfigParser(interpolation=None)
    config.read(ROOT / "services" / "supervisord.conf")
    values = {"LAB_BIN": str(BIN), "API_PORT": "PORT", "API_WORKERS": str(WORKERS), "LAB_ROOT": str(ROOT)}
    try:
        command = config["program:api"]["command"]
        command = re.sub(r"%\(ENV_(\w+)\)s", lambda match: values[match[1]], command)
    except KeyError as error:
        raise LabError(
            f"services/supervisord.conf: {error} is not known here", "add it to loadtests/bench/cases.py"
        ) from error
    return shlex.split(command)


def _ours(models: Models, candidate: str) -> dict[str, str]:
    folder = models.folder / "state"
    return {
        "MLFLOW_TRACKING_URI": NO_REGISTRY,
        "MODEL_NAME": models.name,
        "EVENTS_DIR": str(folder / "events"),
        "METRICS_DIR": str(folder / "metrics"),
        "KEEP_DIR": str(models.keep(candidate)),
        "API_KEY": KEY,
        "ELASTIC_APM_SERVER_URL": "",  # there is no APM Server to send traces to
        "PYTHONPATH": str(ROOT),
    }


def _write_bodies(models: Models) -> dict[str, Path]:
    """Write the requests of each form, one per line, in the order of the rows; return the files."""
    plain = models.plain()
    endless = itertools.cycle(models.records())
    forms: dict[str, list[Any]] = {
        "record": models.records(),
        "rows": [{"rows": [row]} for row in plain],
        "split": [{"dataframe_split": {"columns": models.features, "data": [row]}} for row in plain],
        "batch": [{"instances": list(itertools.islice(endless, BATCH))} for _ in range(BATCHES)],
    }
    files = {}
    for form, bodies in forms.items():
        files[form] = models.folder / f"{form}.ndjson"
        files[form].write_bytes(msgspec.json.Encoder().encode_lines(bodies))
    return files
