"""Data in, champion out."""
