"""The dashboard: it holds no model and speaks HTTP to the API."""
