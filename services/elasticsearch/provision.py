"""Sets Elasticsearch and Kibana up for the lab; run it again whenever you like.

    python provision.py elasticsearch    # passwords, roles, users, lifecycle, templates, data streams
    python provision.py kibana           # data views and dashboards

Everything it puts there stands in the JSON files beside it and in ../kibana/objects. To change a dashboard, change it
in Kibana, export it with its references over the file, and commit. A changed mapping holds from a data stream's next
backing index on. Addresses, passwords and SETUP_SECONDS, the limit on all waiting, come from the environment. It uses
the standard library only.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
OBJECTS = HERE.parent / "kibana" / "objects"
ANSWER_SECONDS = 30.0
PAUSE_SECONDS = 2.0
# While its security index comes up after a start, Elasticsearch refuses the right password too.
REFUSED_SECONDS = 30.0
# It is not up, it is busy, or what stands before it says so.
NOT_NOW = (0, 429, 502, 503, 504)


class ProvisionError(Exception):
    """What went wrong and what to do about it, for the person who started this."""


class Server:
    """An HTTP server that `user` signs in to; nothing waits longer than until `deadline` (time.monotonic)."""

    def __init__(self, name: str, url: str, user: str, password: str, deadline: float) -> None:
        self.name, self.url, self.user, self.deadline = name, url.rstrip("/"), user, deadline
        # A proxy of the environment is not for the lab's own network.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self._sign_in = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    def ask(self, method: str, path: str, body: bytes | None = None, kind: str = "application/json") -> tuple[int, Any]:
        """Give the status and the JSON value of the answer, or its text; status 0 when there is no answer."""
        headers = {"Authorization": self._sign_in, "Content-Type": kind, "kbn-xsrf": "lab"}
        request = urllib.request.Request(self.url + path, body, headers, method=method)  # noqa: S310
        try:
            try:
                answer = self._opener.open(request, timeout=ANSWER_SECONDS)
            except urllib.error.HTTPError as error:
                answer = error
            with answer:
                return answer.status, _value(answer.read())
        # The connection was refused, reset or timed out, the host is unknown, or the answer was cut off or is not HTTP.
        except (OSError, http.client.HTTPException) as error:
            return 0, str(getattr(error, "reason", error)) or repr(error)

    def put(self, path: str, value: Any) -> None:
        """Send a JSON value, again while the server is not ready for it; raise ProvisionError unless it is taken."""
        status, answer = self.wait("PUT", path, json.dumps(value).encode(), until=_answered)
        if not 200 <= status < 300:
            raise ProvisionError(f"{self.name} answered PUT {path} with {status}: {_reason(answer)}")

    def wait(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        kind: str = "application/json",
        *,
        until: Callable[[int, Any], bool],
    ) -> tuple[int, Any]:
        """Ask until the answer will do; raise ProvisionError at the deadline or when the password is wrong."""
        refusal_time: float | None = None
        while True:
            status, answer = self.ask(method, path, body, kind)
            now = time.monotonic()
            refusal_time = (refusal_time or now) if status == 401 else None
            if refusal_time is not None and now - refusal_time >= REFUSED_SECONDS:
                raise ProvisionError(
                    f"{self.name} at {self.url} refuses the password of {self.user}: it was changed in Kibana, or "
                    "in .env while an older container runs on. Put the right one into .env, then run `make up`"
                )
            if status != 401 and until(status, answer):
                return status, answer
            if now + PAUSE_SECONDS > self.deadline:
                raise ProvisionError(
                    f"{self.name} at {self.url} gave no good answer in time; the last one to {path} was "
                    f"{status or 'none'}: {_reason(answer)}. See its log"
                )
            time.sleep(PAUSE_SECONDS)


def set_up_elasticsearch(server: Server) -> None:
    """Put the users, roles, lifecycle, templates and data streams there; raise ProvisionError."""
    health = "/_cluster/health?wait_for_status=yellow&timeout=5s"
    server.wait("GET", health, until=lambda status, _: status == 200)
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
    """Import data views and dashboards over those of the same id; raise ProvisionError."""
    # Kibana answers 503 until it can serve, then 200, even when a plugin is degraded.
    server.wait("GET", "/api/status", until=lambda status, _: status == 200)
    objects = b"".join(path.read_bytes().rstrip(b"\n") + b"\n" for path in sorted(OBJECTS.glob("*.ndjson")))
    body, kind = _form("lab.ndjson", objects)
    path = "/api/saved_objects/_import?overwrite=true"
    status, answer = server.wait("POST", path, body, kind, until=_answered)
    if status != 200 or not isinstance(answer, dict) or not answer.get("success"):
        faults = answer.get("errors", answer) if isinstance(answer, dict) else answer
        raise ProvisionError(
            f"Kibana did not import all of {OBJECTS.name} ({status or 'no answer'}): {_reason(faults)}"
        )
    print(f"{answer['successCount']} data views and dashboards")


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
    status, answer = server.wait("GET", path, until=lambda status, answer: _answered(status, answer) and status != 404)
    if status != 200:
        raise ProvisionError(f"{server.name} answered GET {path} with {status}: {_reason(answer)}")


def _create_data_stream(server: Server, name: str) -> None:
    """Make it, so that a dashboard finds its fields before the first event comes; one that is there stays."""
    status, answer = server.wait("PUT", f"/_data_stream/{name}", until=_answered)
    exists = isinstance(answer, dict) and "resource_already_exists_exception" in json.dumps(answer.get("error"))
    if status != 200 and not exists:
        raise ProvisionError(f"{server.name} did not make the data stream {name} ({status}): {_reason(answer)}")
    print(f"data stream {name}{' (there)' if exists else ''}")


def _answered(status: int, _: Any) -> bool:
    return status not in NOT_NOW


def _form(name: str, content: bytes) -> tuple[bytes, str]:
    """A file as multipart/form-data, and the content type that says so."""
    mark = "lab-" + os.urandom(16).hex()
    head = f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
    head += "Content-Type: application/ndjson\r\n\r\n"
    return head.encode() + content + f"\r\n--{mark}--\r\n".encode(), f"multipart/form-data; boundary={mark}"


def _value(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text.decode(errors="replace")


def _reason(answer: Any) -> str:
    """What an answer says for itself, short enough to read."""
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
