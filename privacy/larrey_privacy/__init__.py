"""Differential privacy at a site: mechanism, accounting, ledger, training."""
