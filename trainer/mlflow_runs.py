"""Record a training in MLflow: a run for each candidate, below one parent run, once for each fingerprint."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pandas as pd

from lab import card as cards
from lab import http
from lab.errors import LabError
from lab.problem import Problem, to_builtins
from lab.registry import PACKAGE
from lab.settings import Settings
from trainer import lineage, mlflow_model, plots
from trainer.model_card import make_card
from trainer.results import OOF_FILE, Paths, Result, read_oof

if TYPE_CHECKING:
    from mlflow import MlflowClient

FINGERPRINT = "lab.fingerprint"
# The name of the run that has a run for each candidate below it.
TRAINING = "training"


def record(
    settings: Settings,
    problem: Problem,
    paths: Paths,
    frame: pd.DataFrame,
    results: dict[str, Result],
    anew: Collection[str] = (),
) -> dict[str, str]:
    """Make sure that every result has a finished run; give the run ids by candidate.

    Results in `anew` get another run, because the package in their run is lost. A run that was interrupted is not
    finished, so it is made again. Raises LabError when MLflow does not answer.
    """
    http.request("GET", f"{settings.tracking_url}/health")  # fails within 2 s when MLflow is away
    _limit_waits()
    os.environ.update(http.direct(settings.tracking_url))
    import mlflow

    mlflow.set_tracking_uri(settings.tracking_url)
    try:
        client = mlflow.MlflowClient()
        present = client.get_experiment_by_name(problem.name)
        experiment = present.experiment_id if present else client.create_experiment(problem.name)
        mlflow.set_experiment(experiment_id=experiment)
        runs = {n: None if n in anew else _finished(client, experiment, r.fingerprint) for n, r in results.items()}
        if not all(runs.values()):
            _record_missing(problem, paths, frame, results, runs)
        return {name: run for name, run in runs.items() if run}
    except (mlflow.MlflowException, OSError) as error:
        raise LabError(
            f"MLflow at {settings.tracking_url} failed while the training was recorded: {str(error)[:300]}",
            "nothing was registered and the trained models are kept; see `make status`, then run `make train` again",
        ) from error


def trainings(settings: Settings, problem: Problem, data_md5: str) -> int:
    """The number of trainings on these data in MLflow: with each one, the best score is more likely due to chance."""
    base = f"{settings.tracking_url}/api/2.0/mlflow"
    experiment = http.get_json(f"{base}/experiments/get-by-name?{urlencode({'experiment_name': problem.name})}")
    body = {
        "experiment_ids": [experiment["experiment"]["experiment_id"]],
        "filter": f"tags.`data.md5` = '{data_md5}' AND attributes.run_name = '{TRAINING}'",
        "max_results": 1000,
    }
    url, count = f"{base}/runs/search", 0
    while True:
        answer = http.decode(url, http.request("POST", url, json=body))
        count += len(answer.get("runs", []))
        if not answer.get("next_page_token"):
            return count
        body["page_token"] = answer["next_page_token"]


def _limit_waits() -> None:
    # With its own defaults MLflow waits for minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "120")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")


def _finished(client: MlflowClient, experiment: str, fingerprint: str) -> str | None:
    runs = client.search_runs(
        [experiment], f"tags.`{FINGERPRINT}` = '{fingerprint}' AND attributes.status = 'FINISHED'", max_results=1
    )
    return str(runs[0].info.run_id) if runs else None


def _record_missing(
    problem: Problem, paths: Paths, frame: pd.DataFrame, results: dict[str, Result], runs: dict[str, str | None]
) -> None:
    import mlflow

    commit, dirty = lineage.git_state()
    some = next(iter(results.values()))
    source = {"data.md5": some.data_md5, "git.commit": commit, "git.dirty": str(dirty).lower()}
    text = problem.source.path if not problem.data.until else f"{problem.source.path} until {problem.data.until}"
    # MLflow warns that it guesses the type of the source, and repeats hints about integers each time.
    warnings.filterwarnings("ignore", category=UserWarning, module="mlflow")
    dataset = mlflow.data.from_pandas(
        frame, source=text, name=problem.name, targets=problem.target.column, digest=some.data_md5
    )
    with mlflow.start_run(run_name=TRAINING, tags=source):
        mlflow.log_input(dataset, context="training")
        mlflow.log_params(
            {
                "data.until": problem.data.until,
                "rows": len(frame),
                "evaluation": str(to_builtins(problem)["evaluation"]),
            }
        )
        for name, result in results.items():
            if runs[name]:
                continue
            with mlflow.start_run(run_name=name, nested=True, tags=source) as run:
                mlflow.log_input(dataset, context="training")
                _log_candidate(problem, paths.candidates / name, result, run.info.run_id, commit, dirty)
                # This comes last: a run without this tag, or one that is not FINISHED, does not count as complete.
                mlflow.set_tag(FINGERPRINT, result.fingerprint)
                runs[name] = run.info.run_id


def _log_candidate(problem: Problem, folder: Path, result: Result, run_id: str, commit: str, dirty: bool) -> None:
    import mlflow

    mlflow.log_params(
        {
            "estimator": result.recipe.estimator,
            **{f"settings.{k}": v for k, v in result.recipe.settings.items()},
            **{f"grid.{k}": v for k, v in result.recipe.grid.items()},
            **{f"best.{k}": v for k, v in result.recipe.best.items()},
        }
    )
    _log_metrics(result)
    with tempfile.TemporaryDirectory() as temporary:
        target = Path(temporary)
        truth, oof = read_oof(folder)
        plots.draw_all(target / "plots", result, truth, oof)
        (target / OOF_FILE).write_bytes((folder / OOF_FILE).read_bytes())
        if not result.refusal:
            model = (folder / cards.MODEL_FILE).read_bytes()
            card = make_card(problem, result, run_id, commit, dirty)
            cards.check_hash(card, model)
            mlflow_model.write(target / PACKAGE, card, model)
        mlflow.log_artifacts(temporary)
    mlflow.set_tags({"candidate": result.recipe.candidate, "refusal": result.refusal})


def _log_metrics(result: Result) -> None:
    import mlflow
    from mlflow.entities import Metric
    from mlflow.utils.time import get_current_time_millis

    stamp = get_current_time_millis()
    rows = [
        Metric(f"fold.{metric}", score, stamp, step)
        for metric, scores in result.folds.items()
        for step, score in enumerate(scores)
    ]
    for metric in result.folds:
        rows += [Metric(metric, result.mean(metric), stamp, 0), Metric(f"{metric}.sd", result.sd(metric), stamp, 0)]
    for metric, promise in result.promises.items():
        promised = {"": promise.value, ".low": promise.low, ".high": promise.high}
        rows += [Metric(f"promise.{metric}{end}", value, stamp, 0) for end, value in promised.items()]
    rows += [Metric("threshold", result.threshold, stamp, 0)]
    mlflow.MlflowClient().log_batch(mlflow.active_run().info.run_id, metrics=rows)
