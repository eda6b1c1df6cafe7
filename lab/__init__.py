"""The kernel: code that more than one component of the lab uses."""
