"""The servers that need an app to run. Each app is written as in the documentation of its framework."""
