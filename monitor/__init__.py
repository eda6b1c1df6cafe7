"""The monitor watches the served model: quality, drift, and the decision to roll back."""
