"""Send traces to an APM Server, when a setting names one."""

from __future__ import annotations

import os
from collections.abc import Callable

from flask import Flask

from api.follower import Follower
from api.trace import trace_id


def start(app: Flask, follower: Follower) -> Callable[[], None]:
    """Send transactions to ELASTIC_APM_SERVER_URL from a thread of the agent, so that no request waits.

    Returns a function that sends the remaining transactions and ends the agent.
    """
    import elasticapm
    from elasticapm.contrib.flask import ElasticAPM

    settings = {
        "SERVER_URL": app.config["ELASTIC_APM_SERVER_URL"],
        "SERVICE_NAME": os.environ.get("ELASTIC_APM_SERVICE_NAME", "api"),
        "ENVIRONMENT": os.environ.get("ELASTIC_APM_ENVIRONMENT", app.config["ENVIRONMENT"]),
        # By default the agent asks the metadata addresses of three clouds, and the server for settings.
        "CLOUD_PROVIDER": os.environ.get("ELASTIC_APM_CLOUD_PROVIDER", "none"),
        "CENTRAL_CONFIG": os.environ.get("ELASTIC_APM_CENTRAL_CONFIG", "false"),
        "SERVER_TIMEOUT": os.environ.get("ELASTIC_APM_SERVER_TIMEOUT", "2s"),
    }
    agent = ElasticAPM(app, **settings)

    @app.before_request
    def join() -> None:
        trace_id.set(elasticapm.get_trace_id() or trace_id.get())
        elasticapm.label(model_version=str(follower.model.version) if follower.model else "none")

    return lambda: agent.client.close()
