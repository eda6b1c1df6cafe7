"""Run the pipeline: DVC computes and pushes, then the gate decides."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from lab import aws, http, problem, s3, strict_yaml
from lab.errors import LabError
from lab.settings import ROOT, STATE, Settings
from launcher import preflight, process_env
from launcher.console import Progress
from launcher.process_env import AWS_CONFIG

REPRODUCE = ["-m", "trainer", "reproduce", "--version"]
CHECK = ["-m", "trainer", "check"]
COLLECT = ["-m", "trainer", "collect", "--until-month"]

PUSH_SECONDS, FRESH_SECONDS = 900, 120
# The settings that the trainer needs.
NEEDED = (
    *("PARAMS", "S3_BUCKET", "S3_PORT", "S3_ENDPOINT_URL", "S3_ACCESS_KEY", "S3_SECRET_KEY"),
    *("AWS_REGION", "MLFLOW_PORT", "MLFLOW_URL", "DASK_SCHEDULER_ADDRESS", "ENVIRONMENT", "EVENTS_DAYS", "EVENTS_MB"),
)
PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def prepare_stores(settings: Settings) -> None:
    """Make the bucket and write DVC's configuration, unless both exist."""
    configure_dvc(settings)
    try:
        http.request("GET", f"{settings.s3_url}/{settings.s3_bucket}", timeout=5)
    except http.RefusedError as error:
        if error.status == 403:  # the bucket exists, and S3 asks for a signature
            return
    except http.UnreachableError as error:
        raise s3.unavailable(settings, error) from error
    s3.ensure_bucket(settings)


def run(settings: Settings, options: Sequence[str] = ()) -> None:
    """Compute dataset and candidates, push the data, and decide with the `options` of `trainer promote`.

    Raises LabError when a stage fails, after the stage's own message, or when a service is away.
    """
    preflight.check_git()
    definition = definition_for(settings)
    prepare_stores(settings)
    http.request("GET", f"{settings.tracking_url}/health", timeout=5)
    _remove_empty_lock(settings)
    records = _collected(settings)
    _call(settings, "the pipeline", ["dvc", "repro", str(definition)])
    if not _is_fresh(settings):
        # DVC takes the training as done because of its cache or dvc.lock, but neither contains the models.
        _call(settings, "the training", ["dvc", "repro", "--single-item", "--force", f"{definition}:train"])
    _call(settings, "pushing the data to S3", ["dvc", "push", str(definition), *records], PUSH_SECONDS)
    _call(settings, "the choice", [sys.executable, "-m", "trainer", "promote", *options])


def _collected(settings: Settings) -> list[str]:
    """DVC's file of the collected records, to be pushed with the dataset; empty when there are none.

    Fetches records that are missing in this clone. Raises LabError when DVC's file and params.yaml disagree.
    """
    collected = problem.load(settings.params_path).source.collected
    if collected is None:
        return []
    path, dvc_file = ROOT / collected.path, f"{collected.path}.dvc"
    if _tracked_md5(ROOT / dvc_file) != collected.md5:
        raise LabError(
            f"{dvc_file} and source.collected.md5 in {settings.params} are of different collections",
            "`git checkout` of both files makes them agree again; or `make collect` adds the records anew",
        )
    if not path.is_file():
        _call(settings, "the collected records", ["dvc", "pull", "--quiet", dvc_file], PUSH_SECONDS)
    elif hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() == collected.md5:
        # `make reset` removes DVC's cache, and the push needs the records in it.
        _call(settings, "the collected records", ["dvc", "add", "--quiet", collected.path], PUSH_SECONDS)
    return [dvc_file]


def _tracked_md5(path: Path) -> str:
    """The MD5 in a file of `dvc add`; empty when there is no such file."""
    try:
        return str(strict_yaml.decode(path.read_bytes(), str(path))["outs"][0]["md5"])
    except (FileNotFoundError, LookupError, TypeError):
        return ""


def _is_fresh(settings: Settings) -> bool:
    """Whether the models on disk come from the present data, parameters, code and packages."""
    command = [sys.executable, "-m", "trainer", "fresh"]
    return not subprocess.run(
        command, cwd=ROOT, env=environment(settings), capture_output=True, timeout=FRESH_SECONDS, check=False
    ).returncode


def definition_for(settings: Settings) -> Path:
    """The path of the dvc.yaml beside the problem; it is written when missing."""
    check_place(settings)
    folder = settings.params_path.parent
    path = folder / "dvc.yaml"
    if not path.exists():
        path.write_text(definition(folder))
        print(f"wrote {path.relative_to(ROOT)}: the same pipeline for this table; keep it in git")
    return path.relative_to(ROOT)


def check_place(settings: Settings) -> None:
    """Raise LabError unless PARAMS is a path where the pipeline can run."""
    if settings.params_path.name != "params.yaml" or not settings.params_path.parent.is_relative_to(ROOT):
        raise LabError(
            f"{settings.params_path} cannot be run",
            f"PARAMS must name a file called params.yaml in a folder of its own below {ROOT}",
        )


def definition(folder: Path) -> str:
    """The text of dvc.yaml for a problem in `folder`."""
    inside = folder.relative_to(ROOT)
    text = (ROOT / "dvc.yaml").read_text()
    root = os.path.relpath(ROOT, folder)
    return text.replace("root: . ", f"root: {root} ", 1).replace('here: "" ', f"here: {inside}/ ", 1)


def _remove_empty_lock(settings: Settings) -> None:
    # When DVC is killed while it writes the file, the file stays empty and DVC refuses it later. The results are in
    # DVC's cache.
    path = settings.params_path.parent / "dvc.lock"
    if path.is_file() and not path.stat().st_size:
        path.unlink()


def remove_outputs(settings: Settings) -> None:
    """Remove the files that the pipeline wrote into the work tree. DVC's cache goes with the state."""
    folder = settings.params_path.parent
    for path in (folder / "data" / "dataset.csv", folder / "data" / "validation.json"):
        path.unlink(missing_ok=True)
    if (folder / "models").exists():
        shutil.rmtree(folder / "models")


def configure_dvc(settings: Settings) -> None:
    """Write .dvc/config.local. It holds secrets, so git ignores it."""
    target = aws.target(settings, "s3")
    text = "\n".join(
        [
            "['remote \"lab\"']",
            f"    url = s3://{settings.s3_bucket}/dvc",
            f"    endpointurl = {target.endpoint}",
            f"    access_key_id = {target.key_id}",
            f"    secret_access_key = {target.secret_key}",
            f"    region = {target.region}",
            # Without this line DVC would need the profile that the shell names in AWS_PROFILE.
            "    profile = default",
            f"    configpath = {AWS_CONFIG}",
            f"    credentialpath = {AWS_CONFIG}",
            "",
        ]
    )
    path = ROOT / ".dvc" / "config.local"
    if path.exists() and path.read_text() == text:
        return
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(text)


def environment(settings: Settings) -> dict[str, str]:
    """The environment of the trainer: inherited variables, the settings that it needs, and the shell's proxy.

    The proxy is used for other hosts, such as the source of a table, but not for S3 and MLflow.
    """
    texts = settings.texts()
    return {
        **{name: value for name, value in os.environ.items() if name.lower() in PROXIES},
        **http.direct(settings.s3_url, settings.tracking_url),
        **process_env.environment({name: texts[name] for name in NEEDED}),
        "EVENTS_DIR": os.environ.get("EVENTS_DIR") or str(STATE / "events"),
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
    }


def _show(process: subprocess.Popen[str], progress: Progress) -> None:
    for line in process.stdout or ():
        progress.print(line.rstrip("\n"))


def _call(settings: Settings, what: str, command: list[str], seconds: int | None = None) -> None:
    progress = Progress()
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(settings), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        reader = threading.Thread(target=_show, args=(process, progress), daemon=True)
        reader.start()
        try:
            while process.poll() is None:
                if seconds and progress.seconds() > seconds:
                    raise LabError(f"{what} took more than {seconds} s", "see `make status`, then run `make train`")
                progress.waiting(what)
                time.sleep(0.5)
        finally:
            process.terminate()
            reader.join(timeout=10)
            progress.stop()
    if process.returncode:
        raise LabError(f"{what} failed; the reason is printed above", "correct it, then run `make train`")


def refused_table(settings: Settings, output: str) -> LabError:
    """The error for a table that the trainer's check refused; `output` is the output of that check."""
    # Compose prints its own lines before the error.
    reason = output[max(output.find("error: "), 0) :].removeprefix("error: ").strip()
    return LabError(f"{settings.params} cannot be trained on; nothing was changed. The reason:\n{reason[:4_000]}")
