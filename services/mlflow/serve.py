"""MLflow's tracking server in one process: python services/mlflow/serve.py HOST:PORT.

`mlflow server` imports all of MLflow to make the database and to set the variables that supervisord.conf and
compose.yaml set here, then starts a child that imports MLflow again. This takes twice the start-up time and 250 MB
more. This script does the same steps once. It creates the tables before it opens the port, so that they exist for the
first request.

The guard is needed because MLflow accepts requests from a page on any port of this machine.
"""

import os
import sys

import uvicorn
from mlflow.server import constants
from mlflow.server.fastapi_app import app
from mlflow.server.handlers import initialize_backend_stores

from lab.hosts import Guard, allowed_hosts

if __name__ == "__main__":
    host, _, port = sys.argv[1].rpartition(":")
    initialize_backend_stores(
        backend_store_uri=os.environ[constants.BACKEND_STORE_URI_ENV_VAR],
        default_artifact_root=os.environ[constants.ARTIFACT_ROOT_ENV_VAR],
    )
    hosts = allowed_hosts(os.environ.get("ALLOWED_HOSTS", ""))
    uvicorn.run(Guard(app, hosts), host=host, port=int(port), log_level="warning")
