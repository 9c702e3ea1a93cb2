"""What FLamby published for its two tabular benchmarks, with the settings that made it.

Means of 5 seeds (42 to 46) of the result files of owkin/FLamby at edacf54d,
flamby/results/results_benchmark_fed_{heart_disease,tcga_brca}; ``spread`` is the standard deviation
over seeds of the mean over the clients' own test sets. Each method is in Larrey's own words.
"""

from __future__ import annotations

from dataclasses import dataclass

from larrey_lab.flamby.protocol import Setting
from larrey_lab.flamby.tasks import Binary, Cox
from larrey_strategies.registry import AlgorithmWords

__all__ = ["HEART", "SEEDS", "TCGA", "Row"]

SEEDS = (42, 43, 44, 45, 46)


@dataclass(frozen=True, slots=True)
class Row:
    """One method of a published table."""

    method: str
    average: float
    spread: float
    pooled: float
    setting: Setting


def _server(name: str, eta: float) -> AlgorithmWords:
    """Return an adaptive server optimizer with FLamby's constants, which are not the paper's."""
    decays = {"beta_1": 0.9} | ({} if name == "fedadagrad" else {"beta_2": 0.999})
    return AlgorithmWords(name, {"eta": eta, "tau": 1e-8} | decays)


def _heart(words: AlgorithmWords, rate: float) -> Setting:
    return Setting(words, rate, Binary.batch)


def _tcga(words: AlgorithmWords, rate: float) -> Setting:
    return Setting(words, rate, Cox.batch)


_AVERAGING, _SCAFFOLD = AlgorithmWords("fedavg", {}), AlgorithmWords("scaffold", {"eta_g": 1.0})

HEART = (
    Row("FedAvg", 0.68497, 0.02829, 0.74803, _heart(_AVERAGING, 0.001)),
    Row(
        "FedProx", 0.68497, 0.02829, 0.74803, _heart(AlgorithmWords("fedprox", {"mu": 0.01}), 0.001)
    ),
    Row("Scaffold", 0.68401, 0.02798, 0.74803, _heart(_SCAFFOLD, 0.001)),
    Row("FedAdam", 0.72554, 0.01381, 0.77874, _heart(_server("fedadam", 0.01), 0.01)),
    Row("FedYogi", 0.73137, 0.01253, 0.77874, _heart(_server("fedyogi", 0.01), 0.003162)),
    Row("FedAdagrad", 0.73137, 0.01253, 0.77874, _heart(_server("fedadagrad", 0.316228), 0.003162)),
)
TCGA = (
    Row("FedAvg", 0.73193, 0.18109, 0.73531, _tcga(_AVERAGING, 0.1)),
    Row("FedProx", 0.72903, 0.16826, 0.7167, _tcga(AlgorithmWords("fedprox", {"mu": 0.1}), 0.1)),
    Row("Scaffold", 0.68689, 0.03602, 0.69949, _tcga(_SCAFFOLD, 0.01)),
    Row("FedAdam", 0.81515, 0.02563, 0.84212, _tcga(_server("fedadam", 0.1), 0.01)),
    Row("FedYogi", 0.81515, 0.02563, 0.84212, _tcga(_server("fedyogi", 0.1), 0.01)),
    Row("FedAdagrad", 0.81291, 0.00477, 0.83377, _tcga(_server("fedadagrad", 1.0), 0.01)),
)
