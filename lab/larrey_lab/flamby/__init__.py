"""FLamby's two tabular benchmarks under Larrey's strategies: their protocol, and Larrey's best.

Ogier du Terrail et al. 2022, "FLamby: datasets and benchmarks for cross-silo federated learning in
realistic healthcare settings", NeurIPS Datasets and Benchmarks, https://arxiv.org/abs/2210.04620;
figures and settings from the result files of owkin/FLamby at commit edacf54d. See docs/flamby.md.
"""
