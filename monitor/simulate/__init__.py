"""Simulations of the monitor's rules, for `make simulate`; docs/watching.md shows their figures."""
