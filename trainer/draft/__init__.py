"""`make new`: look at a table, and write a first draft of its params.yaml."""
