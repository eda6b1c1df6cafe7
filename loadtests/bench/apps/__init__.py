"""The servers that are no product to start by a command: each as its own documentation would write it."""
