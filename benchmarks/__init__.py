"""Benchmarks of isoserve, each compared with something else in the same run: `make bench`."""
