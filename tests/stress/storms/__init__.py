"""Storms: run a real service under load and faults, and check its counts."""
