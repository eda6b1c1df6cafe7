"""The stand-in AWS: MiniStack behind a guard, and with limits on its requests to the container engine."""
