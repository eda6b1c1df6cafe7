"""The logs of all processes together are bounded, and their end is shown also after a rotation."""

from __future__ import annotations

import re

import pytest
from supervisor.datatypes import byte_size

from lab.settings import ROOT, Settings
from launcher import supervisor
from tests.unit.test_parity import programs

MOST = 150 * 2**20


def test_all_logs_together_have_at_most_150_mb():
    """The limit holds for the logs of all programs and of supervisord, with the older files that are kept."""
    text = (ROOT / "services" / "supervisord.conf").read_text()
    own = {key: re.search(rf"^logfile_{key}=(.*)$", text, re.M)[1] for key in ("maxbytes", "backups")}
    whole = byte_size(own["maxbytes"]) * (1 + int(own["backups"]))
    for name, program in programs().items():
        assert program["redirect_stderr"] == "true", f"{name} has a second log"
        # supervisor's defaults
        size = byte_size(program.get("stdout_logfile_maxbytes", "50MB"))
        assert size > 0, f"{name} has no limit"
        whole += size * (1 + int(program.get("stdout_logfile_backups", "10")))
    assert whole <= MOST


def test_no_service_writes_a_log_elsewhere():
    """No service writes a log elsewhere; SeaweedFS would write up to 9 GB to the temporary folder."""
    assert "-logtostderr=true" in programs()["s3"]["command"].split(" mini ")[0]


@pytest.mark.parametrize(
    ("new", "old", "expectation"), [(20, 5, "n5 … n19"), (2, 20, "o7 … o19 n0 n1"), (0, 0, "(no log yet)")]
)
def test_the_end_of_a_log_that_was_begun_anew(tmp_path, monkeypatch, new, old, expectation):
    """The end of a short log continues in the older file."""
    monkeypatch.setattr(supervisor, "LOGS", tmp_path)
    for name, letter, lines in (("api.log", "n", new), ("api.log.1", "o", old)):
        if lines:
            (tmp_path / name).write_text("".join(f"{letter}{number}\n" for number in range(lines)))
    end = supervisor.log_end(Settings(), "api").split("\n")
    first, _, rest = expectation.partition(" … ")
    assert (end[0], end[-len(rest.split()) :] if rest else []) == (first, rest.split())
    assert len(end) == (15 if rest else 1)
