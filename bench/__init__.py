"""Benchmarks: ratios against a peer or a physical bound, measured in one run."""
