"""`python -m localstack`: check the key, remove variables that MiniStack does not need, serve it behind the guard."""

from __future__ import annotations

import os
import re
import sys

from localstack import confine

# The services that the release uses. This is a setting of MiniStack: all other services answer 400.
SERVICES = (
    "autoscaling,cloudformation,ec2,ecr,ecs,elasticloadbalancing,iam,kms,logs,monitoring,s3,secretsmanager,sns,ssm,sts,"
    "tagging"
)
# The variables that stay in the environment: MiniStack's own, and those of any process.
KNOWN = (
    *("PATH", "HOME", "TMPDIR", "HOSTNAME", "LANG", "PYTHONPATH", "PYTHONUNBUFFERED", "DOCKER_HOST"),
    *("GATEWAY_PORT", "BIND_HOST", "MINISTACK_HOST", "MINISTACK_HOSTNAME", "SFTP_ENABLED", "IOT_MTLS_ENABLED"),
    *("PERSIST_STATE", "STATE_DIR", "S3_PERSIST", "S3_DATA_DIR", "LOG_LEVEL"),
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
)
# MiniStack accepts the key id `test`, and any key id of twelve digits, as root's, whatever its environment has.
KEY_ID, SECRET = re.compile(r"[A-Za-z0-9]{16,128}"), re.compile(r"\S{16,}")


def main() -> None:
    """Serve until SIGTERM; exit with a message when the key is missing or could be guessed."""
    registry = os.environ.get("REGISTRY", "")
    for name in os.environ.keys() - set(KNOWN):
        del os.environ[name]
    key_id, secret = (os.environ.get(name, "") for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))
    if not KEY_ID.fullmatch(key_id) or not SECRET.fullmatch(secret):
        sys.exit(
            "error: AWS_ACCESS_KEY_ID or AWS_SECRET_ACCESS_KEY is missing or short. "
            "What to do: run `make up`, which draws AWS_EMULATOR_KEY_ID and AWS_EMULATOR_SECRET_KEY"
        )
    os.environ |= {"AUTH": "true", "SERVICES": SERVICES}
    confine.engine(registry, key_id, secret)

    # MiniStack reads its environment on import.
    from ministack import app

    from localstack.guard import Guard

    app.app = Guard(app.app, key_id, secret)
    confine.process(os.environ.get("BIND_HOST", "0.0.0.0"), int(os.environ.get("GATEWAY_PORT", "4566")))  # noqa: S104
    app.main()


if __name__ == "__main__":
    main()
