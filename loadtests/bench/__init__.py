"""`make bench-serving`: this API and other servers side by side, on the same trained model."""
