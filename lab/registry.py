"""The registry: one MLflow registered model per problem. The API serves the version with the alias `champion`.

The module uses MLflow's REST API, so that neither the API nor the monitor needs the MLflow package.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from lab import http
from lab.card import CARD_BYTES, CARD_FILE, MODEL_BYTES, MODEL_FILE
from lab.errors import LabError

ALIAS = "champion"
PACKAGE = "package"


@dataclass(frozen=True)
class Version:
    """A registered version. `package_path` is its package under MLflow's artifact root."""

    model: str
    number: int
    package_path: str
    run_id: str
    tags: dict[str, str]


@dataclass(frozen=True)
class Registry:
    """The registry of one MLflow server, for one registered model."""

    url: str
    model: str

    def champion(self) -> Version | None:
        """The version that the alias names, or None when the alias is not set."""
        try:
            answer = self._get("registered-models/alias", name=self.model, alias=ALIAS)
        except http.RefusedError as error:
            # MLflow's codes for a model that it does not know, and for an alias that is not set.
            if error.code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise
        return self._version(answer["model_version"])

    def version(self, number: int) -> Version:
        """A registered version by its number; raise LabError when there is none."""
        version = self.find_version(number)
        if version is None:
            raise LabError(f"{self.model} has no version {number}", f"the versions are listed at {self.url}/#/models")
        return version

    def find_version(self, number: int) -> Version | None:
        """A registered version by its number, or None when there is none."""
        try:
            answer = self._get("model-versions/get", name=self.model, version=str(number))
        except http.RefusedError as error:
            if error.code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        return self._version(answer["model_version"])

    def find(self, fingerprint: str) -> Version | None:
        """The newest version made from the recipe with this fingerprint, if any."""
        query = f"name = '{self.model}' AND tags.fingerprint = '{fingerprint}'"
        answer = self._get("model-versions/search", filter=query, max_results="100")
        versions = [self._version(v) for v in answer.get("model_versions", [])]
        return max(versions, key=lambda v: v.number, default=None)

    def register(self, run_id: str, package_path: str, tags: dict[str, str]) -> Version:
        """Register the package that the run holds. It is not served until `promote`."""
        try:
            self._post("registered-models/create", {"name": self.model})
        except http.RefusedError as error:
            if error.code != "RESOURCE_ALREADY_EXISTS":
                raise
        answer = self._post(
            "model-versions/create",
            {
                "name": self.model,
                "source": f"mlflow-artifacts:/{package_path}",
                "run_id": run_id,
                "tags": [{"key": k, "value": v} for k, v in tags.items()],
            },
        )
        return self._version(answer["model_version"])

    def promote(self, version: Version) -> None:
        """Point the alias at the version. Only `lab.champion` calls this, after the ledger has the decision."""
        self._post("registered-models/alias", {"name": self.model, "alias": ALIAS, "version": str(version.number)})

    def tag(self, version: Version, key: str, value: str) -> None:
        self._post(
            "model-versions/set-tag",
            {"name": self.model, "version": str(version.number), "key": key, "value": value},
        )

    def run_artifacts(self, run_id: str) -> str:
        """Where a run's artifacts are, under MLflow's artifact root."""
        uri: str = self._get("runs/get", run_id=run_id)["run"]["info"]["artifact_uri"]
        return _artifact_path(uri)

    def artifact_url(self, path: str) -> str:
        """The address of a file under MLflow's artifact root."""
        return f"{self.url}/api/2.0/mlflow-artifacts/artifacts/{quote(path)}"

    def download(self, version: Version) -> tuple[bytes, bytes]:
        """The package of a version: `card.json` and `model.onnx`, not yet verified."""
        return self._artifact(version, CARD_FILE, CARD_BYTES), self._artifact(version, MODEL_FILE, MODEL_BYTES)

    def _artifact(self, version: Version, name: str, most: int) -> bytes:
        return http.request("GET", self.artifact_url(f"{version.package_path}/{name}"), most=most)

    def _version(self, raw: dict[str, Any]) -> Version:
        return Version(
            model=self.model,
            number=int(raw["version"]),
            package_path=_artifact_path(raw["source"]),
            run_id=raw.get("run_id", ""),
            tags={tag["key"]: tag["value"] for tag in raw.get("tags", [])},
        )

    def _get(self, path: str, **query: str) -> Any:
        return http.get_json(f"{self.url}/api/2.0/mlflow/{path}?{urlencode(query)}")

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        url = f"{self.url}/api/2.0/mlflow/{path}"
        return http.decode(url, http.request("POST", url, json=body))


def _artifact_path(uri: str) -> str:
    return uri.removeprefix("mlflow-artifacts:").lstrip("/")
