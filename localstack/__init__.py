"""The stand-in AWS: MiniStack, with a guard in front and a limit on what it may ask of the container engine."""
