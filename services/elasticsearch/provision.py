"""Set Elasticsearch and Kibana up for the lab. A second run changes nothing.

    python provision.py elasticsearch    # passwords, roles, users, lifecycle, templates, data streams
    python provision.py kibana           # data views, dashboards, alert rules

The script sends the JSON files in its folder, in ../kibana/objects and in ../kibana/rules. To change a dashboard,
change it in Kibana, export it with its references over the file, and commit. A changed mapping takes effect with a
data stream's next backing index.
Addresses, passwords and SETUP_SECONDS, the limit on all waiting, come from the environment.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import sys
import time
import urllib.parse
from collections.abc import Collection
from pathlib import Path
from typing import Any, Self

import urllib3

HERE = Path(__file__).resolve().parent
OBJECTS = HERE.parent / "kibana" / "objects"
RULES = HERE.parent / "kibana" / "rules"
# Kibana refuses these in the update of a rule, because they cannot change. A person may disable a rule; it stays so.
FIXED = ("rule_type_id", "consumer", "enabled")
ANSWER_SECONDS = 30.0
PAUSE_SECONDS = 2.0
# Elasticsearch also refuses the right password until its security index is up, some time after its start.
REFUSED_SECONDS = 30.0
# The server is busy or not up, or a proxy in front of it gives such a status.
NOT_NOW = (429, 502, 503, 504)
# Every status but success. It is used for requests that succeed as soon as the server is up.
UNREADY = range(300, 600)


class ProvisionError(Exception):
    """A fault. The message states the fault and the remedy for the person who started the script."""


class Retries(urllib3.Retry):
    """Retry until `deadline` (time.monotonic), with pauses; after a refused password only for REFUSED_SECONDS."""

    def __init__(self, *, deadline: float, **options: Any) -> None:
        super().__init__(**options)
        self.deadline = deadline

    def new(self, **options: Any) -> Self:
        return super().new(deadline=self.deadline, **options)

    def is_exhausted(self) -> bool:
        refusals = len(list(itertools.takewhile(lambda each: each.status == 401, reversed(self.history))))
        return refusals * PAUSE_SECONDS > REFUSED_SECONDS or time.monotonic() + PAUSE_SECONDS > self.deadline


class Server:
    """An HTTP server that `user` signs in to; nothing waits longer than until `deadline` (time.monotonic)."""

    def __init__(self, name: str, url: str, user: str, password: str, deadline: float) -> None:
        self.name, self.url, self.user, self.deadline = name, url.rstrip("/"), user, deadline
        self._pool = urllib3.PoolManager()  # no proxy, which could not reach the lab's network
        self._sign_in = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        kind: str = "application/json",
        *,
        again: Collection[int] = NOT_NOW,
    ) -> tuple[int, Any]:
        """The status and the JSON value of the answer, or its text.

        Asks again while the status is one of `again`, or there is no whole answer. Raises ProvisionError at the
        deadline, or when the password is refused.
        """
        headers = {"Authorization": self._sign_in, "Content-Type": kind, "kbn-xsrf": "lab"}
        retries = Retries(
            deadline=self.deadline,
            total=None,
            allowed_methods=None,
            status_forcelist={*again, 401},
            backoff_factor=PAUSE_SECONDS,
            backoff_max=PAUSE_SECONDS,
            respect_retry_after_header=False,
            redirect=False,
            raise_on_status=False,
        )
        try:
            answer = self._pool.request(
                method,
                self.url + path,
                body=body,
                headers=headers,
                timeout=ANSWER_SECONDS,
                retries=retries,
            )
        except urllib3.exceptions.MaxRetryError as error:
            raise self._late(path, "none", str(error.reason)) from error
        if answer.status == 401:
            raise ProvisionError(
                f"{self.name} at {self.url} refuses the password of {self.user}: it was changed in Kibana, or "
                "in .env while an older container runs on. Put the right one into .env, then run `make up`"
            )
        if answer.status in again:
            raise self._late(path, str(answer.status), _reason(_value(answer.data)))
        return answer.status, _value(answer.data)

    def put(self, path: str, value: Any) -> None:
        """Send a JSON value; raise ProvisionError unless the server takes it."""
        status, answer = self.ask("PUT", path, json.dumps(value).encode())
        if not 200 <= status < 300:
            raise ProvisionError(f"{self.name} answered PUT {path} with {status}: {_reason(answer)}")

    def _late(self, path: str, status: str, reason: str) -> ProvisionError:
        return ProvisionError(
            f"{self.name} at {self.url} gave no good answer in time; the last one to {path} was "
            f"{status}: {reason}. See its log"
        )


def set_up_elasticsearch(server: Server) -> None:
    """Create the users, roles, lifecycle, templates and data streams; raise ProvisionError."""
    health = "/_cluster/health?wait_for_status=yellow&timeout=5s"
    server.ask("GET", health, again=UNREADY)
    server.put("/_security/user/kibana_system/_password", {"password": secret("KIBANA_PASSWORD")})
    _put_folder(server, "roles", "/_security/role")
    for name, user in read(HERE / "users.json").items():
        server.put(f"/_security/user/{name}", {"password": secret(user["password"]), "roles": user["roles"]})
        print(f"user {name}")
    _put_folder(server, "ilm", "/_ilm/policy")
    _put_folder(server, "component_templates", "/_component_template")
    for file in sorted((HERE / "index_templates").glob("*.json")):
        for name in read(file)["composed_of"]:
            _wait_for_template(server, "/_component_template", name)
    _put_folder(server, "index_templates", "/_index_template")
    for template, names in read(HERE / "data_streams.json").items():
        _wait_for_template(server, "/_index_template", template)
        for name in names:
            _create_data_stream(server, name)


def set_up_kibana(server: Server) -> None:
    """Import data views, dashboards and alert rules, and replace those with the same id; raise ProvisionError."""
    # Kibana answers 503 until it can serve, then 200, even when a plugin is degraded.
    server.ask("GET", "/api/status", again=UNREADY)
    objects = b"".join(path.read_bytes().rstrip(b"\n") + b"\n" for path in sorted(OBJECTS.glob("*.ndjson")))
    body, kind = urllib3.encode_multipart_formdata({"file": ("lab.ndjson", objects, "application/ndjson")})
    path = "/api/saved_objects/_import?overwrite=true"
    status, answer = server.ask("POST", path, body, kind)
    if status != 200 or not isinstance(answer, dict) or not answer.get("success"):
        faults = answer.get("errors", answer) if isinstance(answer, dict) else answer
        raise ProvisionError(f"Kibana did not import all of {OBJECTS.name} ({status}): {_reason(faults)}")
    print(f"{answer['successCount']} data views and dashboards")
    for file in sorted(RULES.glob("*.json")):
        _put_rule(server, read(file))


def read(path: Path) -> Any:
    """The JSON value of a file; raise ProvisionError that names it."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ProvisionError(f"{path}: {error}") from error


def secret(name: str) -> str:
    """The value of the environment variable; raise ProvisionError when it is not set."""
    if not (value := os.environ.get(name, "")):
        raise ProvisionError(f"{name} is not set; `make up` draws it and keeps it in .env")
    return value


def _put_folder(server: Server, folder: str, path: str) -> None:
    for file in sorted((HERE / folder).glob("*.json")):
        server.put(f"{path}/{urllib.parse.quote(file.stem)}", read(file))
        print(f"{folder.replace('_', ' ')}: {file.stem}")


def _wait_for_template(server: Server, path: str, name: str) -> None:
    """Wait for a template. Elasticsearch creates its own some time after its start; the lab's exist already."""
    path = f"{path}/{urllib.parse.quote(name)}"
    status, answer = server.ask("GET", path, again={*NOT_NOW, 404})
    if status != 200:
        raise ProvisionError(f"{server.name} answered GET {path} with {status}: {_reason(answer)}")


def _create_data_stream(server: Server, name: str) -> None:
    """Create a data stream if it is missing, so that a dashboard finds its fields before the first event."""
    status, answer = server.ask("PUT", f"/_data_stream/{name}")
    exists = isinstance(answer, dict) and "resource_already_exists_exception" in json.dumps(answer.get("error"))
    if status != 200 and not exists:
        raise ProvisionError(f"{server.name} did not make the data stream {name} ({status}): {_reason(answer)}")
    print(f"data stream {name}{' (there)' if exists else ''}")


def _put_rule(server: Server, rule: dict[str, Any]) -> None:
    """Create the alert rule with the id in the file, or change it when it exists; raise ProvisionError."""
    path = f"/api/alerting/rule/{rule.pop('id')}"
    status, answer = server.ask("GET", path)
    exists = status == 200
    if status == 404:
        status, answer = server.ask("POST", path, json.dumps(rule).encode())
        exists = status == 409  # an earlier request created the rule, and its answer was lost
    if exists:
        changes = {name: value for name, value in rule.items() if name not in FIXED}
        status, answer = server.ask("PUT", path, json.dumps(changes).encode())
    if status != 200:
        raise ProvisionError(f"{server.name} did not take the rule {rule['name']} ({status}): {_reason(answer)}")
    print(f"rule {rule['name']}{' (there)' if exists else ''}")


def _value(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text.decode(errors="replace")


def _reason(answer: Any) -> str:
    """The reason in an answer, cut to a readable length."""
    if isinstance(answer, dict) and isinstance(answer.get("error"), dict):
        answer = answer["error"].get("reason", answer["error"])
    return (answer if isinstance(answer, str) else json.dumps(answer))[:600]


def main(arguments: list[str]) -> int:
    parts = {
        "elasticsearch": ("Elasticsearch", "ELASTICSEARCH_URL", "http://elasticsearch:9200", set_up_elasticsearch),
        "kibana": ("Kibana", "KIBANA_URL", "http://kibana:5601", set_up_kibana),
    }
    if len(arguments) != 1 or arguments[0] not in parts:
        print(f"usage: python provision.py {'|'.join(parts)}", file=sys.stderr)
        return 2
    name, address, default, set_up = parts[arguments[0]]
    try:
        deadline = time.monotonic() + float(os.environ.get("SETUP_SECONDS") or 300)
        set_up(Server(name, os.environ.get(address) or default, "elastic", secret("ELASTIC_PASSWORD"), deadline))
    except ProvisionError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
