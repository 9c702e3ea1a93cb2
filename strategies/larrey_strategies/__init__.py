"""Federated algorithms, one file a paper, as pure functions over numpy arrays."""
