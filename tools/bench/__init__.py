"""Benchmarks against the libraries that people would pick instead: `python -m tools.bench SUITE`."""
