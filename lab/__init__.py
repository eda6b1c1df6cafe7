"""What more than one component of the lab must agree on."""
