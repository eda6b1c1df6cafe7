"""Serve the dashboard: python dashboard/serve.py HOST:PORT.

This is `streamlit run dashboard/app.py` behind a guard: Streamlit does not check Host, and accepts requests from a page
on any port of this machine.
"""

import os
import sys

import streamlit as st
from starlette.middleware import Middleware

from lab.hosts import Guard, allowed_hosts

if __name__ == "__main__":
    host, _, port = sys.argv[1].rpartition(":")
    hosts = allowed_hosts(os.environ.get("ALLOWED_HOSTS", ""))
    st.App("app.py", middleware=[Middleware(Guard, hosts=hosts)]).run(
        config={
            "server.address": host,
            "server.port": int(port),
            "server.headless": True,
            "server.fileWatcherType": "none",
            # The names are for Streamlit's own check of Origin, which always allows the loopback.
            "server.corsAllowedOrigins": [f"https://{name}" for name in sorted(hosts)],
            "browser.gatherUsageStats": False,
            "client.toolbarMode": "minimal",
        }
    )
