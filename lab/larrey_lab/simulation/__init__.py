"""A study without servers: the same study file, the same ClientApp, the strategies themselves.

For public or synthetic data: whoever tries settings on patients' data spends their epsilon, and
nothing here keeps a ledger.
"""
