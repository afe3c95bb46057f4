"""How fast isoserve is, always against something else in the same run: `make bench`."""
