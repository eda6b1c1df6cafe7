"""`make bench-serving`: compare this API with other servers on the same trained model."""
