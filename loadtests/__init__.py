"""Load tests of the running API, and a comparison with other servers."""
