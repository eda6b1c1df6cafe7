"""The dashboard's server: python dashboard/serve.py HOST:PORT.

It is `streamlit run dashboard/app.py` behind a guard, for Streamlit checks no Host, and takes any page on this machine
for its own.
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
            # Streamlit's own check of the Origin, which knows the loopback.
            "server.corsAllowedOrigins": [f"https://{name}" for name in sorted(hosts)],
            "browser.gatherUsageStats": False,
            "client.toolbarMode": "minimal",
        }
    )
