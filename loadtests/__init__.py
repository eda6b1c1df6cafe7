"""Load on the running API, and the API side by side with other servers."""
