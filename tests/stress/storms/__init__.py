"""Storms: a real service under load and faults, and what it counted."""
