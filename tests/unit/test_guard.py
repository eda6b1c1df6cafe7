"""The guard in front of the stand-in AWS, tested through its real server."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import urllib3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from lab.settings import ROOT
from tests.emulator import Emulator, balance, environment, running, serving

FUNCTION = json.dumps({"FunctionName": "f", "Runtime": "python3.11", "Handler": "i.h", "Role": "r", "Code": {}})
TRUST = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "*"}]}
ROLE = "arn:aws:iam::000000000000:role/reader"


@pytest.fixture(scope="module")
def aws(tmp_path_factory) -> Iterator[Emulator]:
    """A running stand-in that has a bucket, so that a reset would be noticed."""
    with running(tmp_path_factory.mktemp("aws")) as emulator:
        emulator.client("s3").create_bucket(Bucket="kept")
        yield emulator


def ask(aws: Emulator, method: str, path: str, body: bytes | str = b"", **headers: str) -> urllib3.BaseHTTPResponse:
    """Send a request exactly as given; an underscore in a header's name becomes a hyphen."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return urllib3.request(method, aws.url + path, body=body, headers=fields, retries=False, timeout=20)


def raw(aws: Emulator, text: str) -> list[int]:
    """The statuses of the answers to bytes on one connection, until it is closed or silent."""
    with socket.create_connection(("127.0.0.1", aws.port), 2) as connection:
        connection.sendall(text.replace("\n", "\r\n").encode())
        received = b""
        with contextlib.suppress(ConnectionError, TimeoutError):
            while piece := connection.recv(65_536):
                received += piece
    return [int(code) for code in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]


def signed(aws: Emulator, path: str = "/", service: str = "s3", method: str = "GET", **headers: str) -> dict[str, str]:
    """The headers of a request that root signed."""
    request = AWSRequest(method, aws.url + path, {name.replace("_", "-"): value for name, value in headers.items()})
    SigV4Auth(Credentials(aws.key_id, aws.secret), service, "us-east-1").add_auth(request)
    return {**dict(request.headers), "Host": f"127.0.0.1:{aws.port}"}


def lines(fields: dict[str, str]) -> str:
    return "".join(f"{name}: {value}\n" for name, value in fields.items())


def buckets(aws: Emulator) -> list[str]:
    return [bucket["Name"] for bucket in aws.client("s3").list_buckets()["Buckets"]]


def code(call: Any, *words: Any, **more: Any) -> str:
    """The error code of AWS; empty when the call succeeds."""
    try:
        call(*words, **more)
    except ClientError as error:
        return error.response["Error"]["Code"]
    return ""


def credential(key_id: str, service: str = "lambda") -> str:
    scope = f"{key_id}/20261126/us-east-1/{service}/aws4_request"
    return f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"


def test_the_drawn_key_opens_what_the_release_needs(aws):
    """boto3 with the drawn key works in every protocol of AWS: JSON, query and XML."""
    assert aws.client("sts").get_caller_identity()["Arn"] == "arn:aws:iam::000000000000:root"
    s3 = aws.client("s3")
    s3.put_object(Bucket="kept", Key="a/b c+ü", Body=b"x" * 100_000)
    assert s3.get_object(Bucket="kept", Key="a/b c+ü")["Body"].read() == b"x" * 100_000
    for service, operation in [
        *(("ecs", "list_clusters"), ("ecr", "describe_repositories"), ("cloudformation", "list_stacks")),
        *(("ec2", "describe_vpcs"), ("elbv2", "describe_load_balancers"), ("iam", "list_roles")),
        *(("logs", "describe_log_groups"), ("secretsmanager", "list_secrets"), ("cloudwatch", "list_metrics")),
        *(("sns", "list_topics"), ("ssm", "describe_parameters"), ("kms", "list_keys")),
    ]:
        assert getattr(aws.client(service), operation)(), service


@pytest.mark.parametrize("headers", [{}, {"Origin": "http://evil.example"}], ids=["no origin", "a page"])
@pytest.mark.parametrize("path", ["/2015-03-31/functions", "/", "/?Action=CreateUser&UserName=u", "/bucket"])
@pytest.mark.parametrize("method", ["POST", "PUT", "GET", "OPTIONS"])
def test_without_a_key_nothing_is_answered(aws, method, path, headers):
    """A program or a page without a key is refused, also with a request that once created a Lambda function."""
    answer = ask(aws, method, path, FUNCTION, Content_Type="text/plain", **headers)
    assert answer.status == 403
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert buckets(aws) == ["kept"]


@pytest.mark.parametrize("key_id", ["test", "", "123456789012", "000000000000", "AKIAIOSFODNN7EXAMPLE", "a b"])
@pytest.mark.parametrize("service", ["lambda", "iam", "s3", "sts", "ecs"])
def test_a_key_id_that_anybody_knows_is_refused(aws, key_id, service):
    """The key ids that MiniStack takes for root are refused in the header and in both kinds of query."""
    v4 = f"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={key_id}/20261126/us-east-1/{service}/aws4_request"
    v4 += "&X-Amz-Date=20261126T000000Z&X-Amz-Expires=604800&X-Amz-SignedHeaders=host&X-Amz-Signature=0"
    v2 = f"AWSAccessKeyId={key_id}&Signature=0&Expires=9999999999"
    body, path = "Action=CreateUser&UserName=u&Version=2010-05-08", "/new" if service == "s3" else "/"
    form = {"Content_Type": "application/x-www-form-urlencoded"}
    method = "PUT" if service == "s3" else "POST"
    assert ask(aws, method, path, body, Authorization=credential(key_id, service), **form).status in (400, 403)
    assert ask(aws, method, path, body, Authorization=f"AWS {key_id}:0", **form).status in (400, 403)
    for query in (v4, v2, f"X-Amz-Credential={key_id}/20261126/us-east-1/{service}/aws4_request"):
        assert ask(aws, method, f"{path}?{query}".replace(" ", "%20"), body, **form).status in (400, 403)
    assert buckets(aws) == ["kept"]
    assert aws.client("iam").list_users()["Users"] == []


def test_the_key_id_alone_is_not_enough(aws, monkeypatch):
    """The secret must have signed the request, because a presigned URL shows the key id."""
    for service, operation in (("sts", "get_caller_identity"), ("s3", "list_buckets"), ("ecs", "list_clusters")):
        assert "Signature" in code(getattr(aws.client(service, secret="x" * 40), operation))
    assert ask(aws, "GET", "/", **signed(aws)).status == 200
    for definition in ({}, {"X_Amz_Content_SHA256": ""}):
        altered = signed(aws, method="PUT", path="/new", **definition)
        assert ask(aws, "PUT", "/new", b"<CreateBucketConfiguration/>", **altered).status in (400, 403), "another body"
    for minutes in (-20, 20):
        then = datetime.now(UTC) + timedelta(minutes=minutes)
        monkeypatch.setattr("botocore.auth.get_current_datetime", lambda then=then: then)
        assert ask(aws, "GET", "/", **signed(aws)).status == 403
    monkeypatch.undo()
    assert buckets(aws) == ["kept"]


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/_ministack/reset",
            "//_ministack/reset",
            "/%5fministack/reset",
            "/_ministack%2freset",
            "/_ministack//reset",
        ),
        *("/_ministack/config", "/_ministack/ready", "/_ministack/cfn-signal/x", "/_ministack/rds/iam-auth"),
        *("/_localstack/health", "/_aws/lambda-url/x/", "/_aws/execute-api/x/y/", "/_alb/x/", "/_ministack/health/"),
        *(
            "/health",
            "/oauth2/token",
            "/latest/meta-data/",
            "/v2/credentials/x",
            "/v4/xxxxxxxx",
            "/restapis/x/y/_user_request_/",
        ),
    ],
)
def test_its_other_doors_are_closed(aws, path):
    """Paths of MiniStack that need no key are closed, also to signed requests; the health check answers."""
    for method in ("POST", "GET", "PUT"):
        assert ask(aws, method, path).status in (401, 403)
    if path.strip("/").startswith(("_", "%5f")):
        assert ask(aws, "POST", path, **signed(aws, path, method="POST")).status == 403
    assert buckets(aws) == ["kept"]
    assert ask(aws, "GET", "/_ministack/health").status == 200
    assert ask(aws, "POST", "/_ministack/health").status == 403


@pytest.mark.parametrize("path", ["/v2/", "/v2", "/v2/_catalog", "/v2/x/manifests/1", "/v2/x/blobs/uploads/"])
def test_the_registry_wants_a_password(aws, path):
    """The registry accepts the key with its secret or a token of ECR, and neither MiniStack's fixed token nor none."""

    def status(user: str, password: str) -> int:
        coded = base64.b64encode(f"{user}:{password}".encode()).decode()
        return ask(aws, "GET", path, Authorization=f"Basic {coded}").status

    answer = ask(aws, "GET", path)
    assert (answer.status, answer.headers["WWW-Authenticate"][:5]) == (401, "Basic")
    later = int(time.time()) + 3600
    for user, password in [
        *(
            ("AWS", "ministack-auth-token"),
            ("AWS", ""),
            ("", ""),
            (aws.key_id, ""),
            ("test", "test"),
            ("AWS", aws.secret),
        ),
        *(("AWS", f"{later}.{'0' * 64}"), (aws.key_id, "x" * 40)),
    ]:
        assert status(user, password) == 401, user
    for header in ("Basic", "Basic !", "Basic ÿ", "Bearer x", credential(aws.key_id, "ecr")):
        assert ask(aws, "GET", path, Authorization=header.encode("latin-1")).status == 401
    assert status(aws.key_id, aws.secret) not in (401, 403)
    data = aws.client("ecr").get_authorization_token()["authorizationData"][0]
    user, _, password = base64.b64decode(data["authorizationToken"]).decode().partition(":")
    assert status(user, password) not in (401, 403)
    end, _, mac = password.partition(".")
    assert status(user, f"{int(end) + 1}.{mac}") == status(user, f"{int(end) - 86_400}.{mac}") == 401


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "localhost.", "127.0.0.1", "[::1]"])
def test_it_is_known_by_the_names_of_the_loopback(aws, host):
    """The loopback names are accepted in any case, with a dot at the end, and with a port or none."""
    for name in (host, f"{host}:{aws.port}"):
        assert raw(aws, f"GET /_ministack/health HTTP/1.1\nHost: {name}\nConnection: close\n\n") == [200]


@pytest.mark.parametrize(
    "host",
    [
        *(
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost@evil.example",
            "localhost, evil.example",
            "evil.localhost",
        ),
        *("", "127.0.0.1:99999999", "0.0.0.0", "[::ffff:127.0.0.1]", "kept.s3.127.0.0.1", "x.elb.amazonaws.com"),  # noqa: S104
    ],
)
def test_another_host_is_refused(aws, host):
    """A host name that resolves to 127.0.0.1 gets nothing, not even the health check."""
    for path in ("/_ministack/health", "/"):
        (status,) = raw(aws, f"GET {path} HTTP/1.1\nHost: {host}\nConnection: close\n\n")
        assert status in (400, 403)


def test_what_can_be_read_in_two_ways_is_refused(aws):
    """Repeated headers, two signatures, no Host, another version of HTTP, and a websocket are refused."""
    good = signed(aws)
    host = f"Host: 127.0.0.1:{aws.port}\n"
    assert raw(aws, f"GET / HTTP/1.1\n{lines(good)}Connection: close\n\n") == [200]
    for more in (
        *(f"Authorization: {credential('test', 's3')}\n", host, "Origin: x\nOrigin: y\n"),
        *("X-Amz-Target: AmazonEC2ContainerServiceV20141113.ListClusters\n", "x-amz-date: 20200101T000000Z\n"),
    ):
        (status,) = raw(aws, f"GET / HTTP/1.1\n{lines(good)}{more}Connection: close\n\n")
        assert status in (400, 403), more
    query = "/?X-Amz-Credential=test/20261126/us-east-1/s3/aws4_request&X-Amz-Signature=0"
    assert ask(aws, "GET", query, **signed(aws, query)).status == 400
    for twice in ("AWSAccessKeyId=a&AWSAccessKeyId=b&Signature=0&Expires=9999999999", "x-amz-credential=test/a/b/c/d"):
        assert ask(aws, "GET", f"/?{twice}").status in (400, 403)
    assert raw(aws, "GET /_ministack/health HTTP/1.1\nConnection: close\n\n") == [400]
    assert raw(aws, f"GET http://evil.example/_ministack/health HTTP/1.1\n{host}Connection: close\n\n") == [400]
    assert raw(aws, f"GET /_ministack/health HTTP/1.0\n{host}\n") == [505]
    for path in ("/_ministack/reset", "/new"):  # HTTP/2 answers in frames; what counts is that nothing came of it
        upgrade = "Connection: Upgrade, HTTP2-Settings\nUpgrade: h2c\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\n"
        assert raw(aws, f"POST {path} HTTP/1.1\n{host}{upgrade}\n") == [101]
    socket_ = "Connection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\n"
    socket_ += "Sec-WebSocket-Key: MTIzNDU2Nzg5MDEyMzQ1Ng==\n"
    assert raw(aws, f"GET /_aws/execute-api/a/b HTTP/1.1\n{host}{socket_}\n") == [403]
    assert buckets(aws) == ["kept"]


def test_each_request_on_a_connection_is_looked_at(aws):
    """A bad request after a good one on the same connection is refused, and so is one hidden in a chunked body."""
    host = f"Host: 127.0.0.1:{aws.port}\n"
    reset = f"POST /_ministack/reset HTTP/1.1\n{host}Content-Length: 0\n\n"
    assert raw(aws, f"GET / HTTP/1.1\n{lines(signed(aws))}\n{reset}") == [200, 403]
    assert raw(aws, f"GET /_ministack/health HTTP/1.1\n{host}\nPUT /new HTTP/1.1\n{host}Content-Length: 0\n\n") == [
        200,
        403,
    ]
    chunk = f"{len(reset.replace(chr(10), '--')):x}\n{reset}\n0\n\n"
    answers = raw(aws, f"PUT /kept/k HTTP/1.1\n{host}Transfer-Encoding: chunked\n\n{chunk}")
    assert 200 not in answers
    assert buckets(aws) == ["kept"]


def test_a_page_of_another_origin_is_refused_even_with_the_key(aws):
    """A page on another port of this machine is refused even with the key; the stand-in's own page is not."""
    own = f"http://127.0.0.1:{aws.port}"
    for origin in (
        "http://evil.example",
        "http://127.0.0.1:3000",
        "null",
        "https://127.0.0.1",
        f"{own}.evil.example",
        "",
    ):
        assert ask(aws, "GET", "/", **signed(aws), Origin=origin).status == 403, origin
        assert ask(aws, "GET", "/_ministack/health", Origin=origin).status == 403, origin
    for site in ("cross-site", "same-site", "", "None"):
        assert ask(aws, "GET", "/", **signed(aws), Sec_Fetch_Site=site).status == 403, site
    for site in ("none", "same-origin"):
        assert ask(aws, "GET", "/", **signed(aws), Sec_Fetch_Site=site, Origin=own).status == 200


@pytest.mark.parametrize("version", [None, "s3v4"], ids=["as boto3 does", "s3v4"])
def test_a_presigned_url_is_good_for_what_it_says(aws, version):
    """A presigned URL holds for its method, path, time and S3 only, also with a form or another service's header."""
    s3 = aws.client("s3", signature_version=version)
    s3.put_object(Bucket="kept", Key="p", Body=b"there")
    get = s3.generate_presigned_url("get_object", Params={"Bucket": "kept", "Key": "p"}, ExpiresIn=3600)
    put = s3.generate_presigned_url("put_object", Params={"Bucket": "kept", "Key": "q"}, ExpiresIn=3600)
    old = s3.generate_presigned_url("get_object", Params={"Bucket": "kept", "Key": "p"}, ExpiresIn=-5)
    fetch = urllib3.PoolManager(retries=False).request
    assert fetch("GET", get).data == b"there"
    assert fetch("PUT", put, body=b"new").status == 200
    assert s3.get_object(Bucket="kept", Key="q")["Body"].read() == b"new"
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    target = {"X-Amz-Target": "AmazonEC2ContainerServiceV20141113.CreateCluster"}
    for method, url, body, headers in [
        *(("DELETE", get, b"", {}), ("GET", get.replace("/p?", "/q?"), b"", {}), ("GET", old, b"", {})),
        *(("GET", get[:-1], b"", {}), ("PUT", get, b"x", {}), ("GET", f"{get}&acl=", b"", {})),
        ("PUT", put, b"Action=CreateUser&UserName=u&Version=2010-05-08", form),
        ("PUT", put, b'{"clusterName": "c"}', target),
    ]:
        assert fetch(method, url, body=body, headers=headers).status in (400, 403), (method, url, headers)
    assert aws.client("iam").list_users()["Users"] == []
    assert aws.client("ecs").list_clusters()["clusterArns"] == []


def test_a_key_from_sts_is_let_in_and_its_policy_holds(aws):
    """A role may do what its policy allows; without its token, or with another secret, it is refused."""
    iam = aws.client("iam")
    iam.create_role(RoleName="reader", AssumeRolePolicyDocument=json.dumps(TRUST))
    policy = {"Effect": "Allow", "Action": ["s3:ListAllMyBuckets", "ecr:GetAuthorizationToken"], "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [policy]})
    iam.put_role_policy(RoleName="reader", PolicyName="p", PolicyDocument=document)
    keys = aws.client("sts").assume_role(RoleArn=ROLE, RoleSessionName="test")["Credentials"]
    key_id, secret, token = keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"]
    assert aws.client("s3", key_id, secret, token).list_buckets()["Buckets"]
    assert aws.client("ecr", key_id, secret, token).get_authorization_token()
    assert code(aws.client("s3", key_id, secret, token).create_bucket, Bucket="new") == "AccessDenied"
    assert code(aws.client("ecs", key_id, secret, token).list_clusters) == "AccessDeniedException"
    for credentials in ((key_id, "x" * 40, token), (key_id, secret, None), (key_id, secret, token[:-1] + "x")):
        assert code(aws.client("s3", *credentials).list_buckets)
    assert buckets(aws) == ["kept"]


def test_the_load_balancers_name_leads_to_its_target_alone(aws):
    """The load balancer's name needs no key and leads to its target for every path; a foreign page is refused."""
    paths = ["/predict?a=b%20c", "/health", "/_ministack/reset", "/v2/", "/oauth2/token", "/_aws/lambda-url/", "/a%2Fb"]
    with serving(b"task") as (port, requests):
        name = balance(aws, port)
        for path in paths:
            for host in (name, f"{name.upper()}:{aws.port}", f"{name}."):
                answer = ask(aws, "POST", path, b"body", Host=host)
                assert (answer.status, answer.data) == (200, b"task"), path
        assert list(dict.fromkeys(requests)) == paths
        chunked = f"POST /chunked HTTP/1.1\nHost: {name}\nTransfer-Encoding: chunked\nConnection: close\n\n"
        assert raw(aws, f"{chunked}4\nbody\n0\n\n") == [200]
        assert ask(aws, "GET", "/", Host=name, Origin=f"http://{name}").status == 200
        assert ask(aws, "POST", "/predict", Host=name, Origin="http://evil.example").status == 403
        assert ask(aws, "GET", "/", Host=name, Sec_Fetch_Site="cross-site").status == 403
        assert ask(aws, "POST", "/", b"x" * (32 * 2**20 + 1), Host=name).status == 413
        assert ask(aws, "GET", "/", Host=f"x{name}").status == 403
    assert buckets(aws) == ["kept"]


def test_it_runs_no_code_for_root_either(aws, tmp_path):
    """A stack that creates and calls a function runs no code, although CloudFormation ignores the list of services."""
    mark = tmp_path / "ran"
    code_ = f"def handler(event, context):\n    open({str(mark)!r}, 'w').close()\n"
    function = {
        "Runtime": "python3.11",
        "Handler": "index.handler",
        "Role": ROLE,
        "Code": {"ZipFile": code_},
        "Timeout": 3,
    }
    token = {"ServiceToken": {"Fn::GetAtt": ["F", "Arn"]}, "ServiceTimeout": "3"}
    resources = {
        "F": {"Type": "AWS::Lambda::Function", "Properties": function},
        "C": {"Type": "Custom::Run", "Properties": token},
    }
    cloud = aws.client("cloudformation")
    cloud.create_stack(StackName="s", TemplateBody=json.dumps({"Resources": resources}), OnFailure="DO_NOTHING")
    deadline = time.monotonic() + 60
    while (status := cloud.describe_stacks(StackName="s")["Stacks"][0]["StackStatus"]).endswith("_IN_PROGRESS"):
        assert time.monotonic() < deadline, status
        time.sleep(0.2)
    assert "FAILED" in status
    assert not mark.exists()
    for service, operation in (("lambda", "list_functions"), ("glue", "get_jobs"), ("codebuild", "list_projects")):
        assert code(getattr(aws.client(service), operation)), service


@pytest.mark.parametrize("key_id", ["", "test", "123456789012", "short", "with spaces in it 1234"])
def test_it_does_not_start_with_a_key_that_can_be_guessed(tmp_path, key_id):
    """The stand-in does not start with a weak key, and the message has a remedy."""
    known = environment(Emulator(1), tmp_path) | {"AWS_ACCESS_KEY_ID": key_id}
    command = [sys.executable, "-m", "localstack"]
    process = subprocess.run(command, cwd=ROOT, env=known, capture_output=True, text=True, timeout=60, check=False)
    assert process.returncode == 1
    assert "What to do: run `make up`" in process.stderr
