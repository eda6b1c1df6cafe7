"""The monitor: watches the champion with statistics, and restores the one before when it is better."""
