"""Test that a page on another port of this machine, in a real browser, gets nothing from the AWS stand-in."""

from __future__ import annotations

import json

from tests.browser.test_dashboard import browser  # noqa: F401
from tests.emulator import balance, running, serving

# The key id that MiniStack by itself takes for root.
ROOT = "?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=test/20261126/us-east-1/iam/aws4_request"
FORM = "Action=CreateUser&UserName=u&Version=2010-05-08"
FUNCTION = {"FunctionName": "f", "Runtime": "python3.11", "Handler": "i.h", "Role": "r", "Code": {}}
# Everything that a page may send without being allowed to; `said` is what the page could read.
PAGE = """<!doctype html><title>begun</title><body></body><script>
const said = [];
const paths = ["/2015-03-31/functions", "/_ministack/reset", "/" + ROOT, "/", "/predict", "/v2/x/blobs/uploads/"];
const heard = url => text => text && said.push(url + " " + text);
const quietly = (url, options) => fetch(url, options).then(r => r.text()).then(heard(url), () => 0);
const post = (kind, body) => ({method: "POST", mode: "no-cors", headers: {"Content-Type": kind}, body});
const add = (parent, tag, fields) => parent.appendChild(Object.assign(document.createElement(tag), fields));
const submit = (url, fields) => new Promise(done => {
  const name = add(document.body, "iframe", {name: "f" + Math.random()}).name;
  const form = add(document.body, "form", {method: "POST", action: url, target: name});
  for (const [name, value] of fields) add(form, "input", {name, value});
  form.submit();
  setTimeout(done, 1000);
});
const load = url => new Promise(done => add(document.body, "img", {onload: done, onerror: done, src: url}));
const dial = url => new Promise(done => {
  Object.assign(new WebSocket(url), {onopen: () => done(said.push("opened " + url)), onerror: done});
});
onload = async () => {
  for (const base of URLS) {
    for (const options of [post("text/plain", FUNCTION), post("application/x-www-form-urlencoded", FORM)])
      for (const path of paths)
        for (const credentials of ["omit", "include"]) await quietly(base + path, {...options, credentials});
    for (const method of ["GET", "PUT", "DELETE"])
      for (const path of ["/", "/kept", "/new", "/v2/_catalog", "/_ministack/health"])
        await quietly(base + path, {method});
    await submit(base + "/" + ROOT, new URLSearchParams(FORM));
    await submit(base + "/_ministack/reset", []);
    for (const path of ["/_ministack/reset", "/" + ROOT + "&" + FORM, "/predict"]) await load(base + path);
    await dial(base.replace("http", "ws") + "/_aws/execute-api/abcdef12/prod");
  }
  document.title = "done";
};
</script>"""


def test_a_page_on_another_port_gets_nowhere(browser, tmp_path):  # noqa: F811
    """By fetch, form, image or WebSocket, a page on another port creates no user, resets nothing and reads nothing."""
    from selenium.webdriver.support.ui import WebDriverWait

    with running(tmp_path) as aws, serving(b"task") as (port, requests):
        aws.client("s3").create_bucket(Bucket="kept")
        balance(aws, port)
        # A browser finds every name below localhost on this machine.
        urls = [aws.url, f"http://localhost:{aws.port}", f"http://front.alb.localhost:{aws.port}"]
        known = {"URLS": urls, "ROOT": ROOT, "FORM": FORM, "FUNCTION": json.dumps(FUNCTION)}
        script = "<script>" + "".join(f"const {name} = {json.dumps(value)};" for name, value in known.items())
        with serving((script + "</script>" + PAGE).encode(), "text/html") as (own, _):
            browser.get(f"http://127.0.0.1:{own}/")
            WebDriverWait(browser, 120).until(lambda driver: driver.title == "done")
            read = browser.execute_script("return said")
        log = (tmp_path / "aws.log").read_text()
        assert (read, requests) == ([], [])
        assert aws.client("iam").list_users()["Users"] == []
        assert [bucket["Name"] for bucket in aws.client("s3").list_buckets()["Buckets"]] == ["kept"]
        assert "a page of another origin" in log
        assert "Sec-Fetch-Site is same-site" in log, "the images, which send no Origin"
