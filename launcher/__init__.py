"""Start, stop and look at the lab. No other component imports it."""
