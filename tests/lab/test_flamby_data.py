"""Patients, features and splits are FLamby's; a contract's scaling looks at nobody's rows."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from larrey_lab.flamby.data import HEART_NAMES, heart_sites, tcga_sites
from larrey_lab.heart import heart_path
from larrey_protocol.errors import FileError
from tests.lab.flamby_help import write_tcga


@pytest.fixture(scope="module")
def heart_by_site():
    return heart_sites()


def test_heart_has_the_sizes_that_flamby_published(heart_by_site):
    assert tuple(site.name for site in heart_by_site) == HEART_NAMES
    sizes = [(len(site.train), len(site.test)) for site in heart_by_site]
    assert sizes == [(199, 104), (172, 89), (30, 16), (85, 45)]
    assert {site.train.x.shape[1] for site in heart_by_site} == {13}


def test_switzerlands_training_patients_are_all_positive(heart_by_site):
    assert heart_by_site[2].train.y.all()
    assert not heart_by_site[2].test.y.all()


def test_a_site_is_scaled_by_its_own_training_patients(heart_by_site):
    for site in heart_by_site:
        mean, deviation = site.train.x.mean(axis=0), site.train.x.std(axis=0, ddof=1)
        assert mean == pytest.approx(np.zeros(13), abs=1e-5)
        constant = deviation == 0
        assert deviation[~constant] == pytest.approx(np.ones((~constant).sum()), abs=1e-5)
        assert not site.train.x[:, constant].any()  # Switzerland's cholesterol


def test_pooled_scaling_is_by_all_training_patients_together():
    together = np.concatenate([site.train.x for site in heart_sites(scaling="pooled")])
    assert together.mean(axis=0) == pytest.approx(np.zeros(13), abs=1e-5)
    assert together.std(axis=0, ddof=1) == pytest.approx(np.ones(13), abs=1e-5)


def test_a_contracts_scaling_does_not_depend_on_other_rows(tmp_path):
    with heart_path().open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    changed = [row | {"age": "99"} if row["dataset"] == "VA Long Beach" else row for row in rows]
    path = tmp_path / "changed.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(changed)
    before, after = heart_sites(scaling="contract"), heart_sites(path, scaling="contract")
    assert all((a.train.x == b.train.x).all() for a, b in zip(before[:3], after[:3], strict=True))
    assert before[3].train.x[:, 0].max() < after[3].train.x[:, 0].max()


def test_a_contracts_range_becomes_minus_one_to_one():
    raw, scaled = (heart_sites(scaling=kind)[0].train.x for kind in ("none", "contract"))
    assert scaled[:, 0] == pytest.approx((raw[:, 0] - 55) / 25, abs=1e-6)  # age 30 to 80
    assert set(np.unique(scaled[:, 8:])) == {0.0, 1.0}  # pain and electrocardiogram


def test_every_scaling_has_the_same_patients_in_the_same_order():
    tables = [heart_sites(scaling=kind) for kind in ("none", "site", "pooled", "contract")]
    for sites in zip(*tables, strict=True):
        assert all((site.test.y == sites[0].test.y).all() for site in sites)


def test_tcga_follows_the_official_split(tmp_path):
    sites = tcga_sites(write_tcga(tmp_path))
    assert sum(len(s.train) + len(s.test) for s in sites) == 60  # whoever has no fold is left out
    assert {s.train.x.shape[1] for s in sites} == {39}
    assert sites[1].test.y[0].tolist() == [0.0, 125.0]  # p25, the first of test_1


def test_tcga_scaled_by_contract_changes_age_alone(tmp_path):
    folder = write_tcga(tmp_path)
    raw, scaled = (tcga_sites(folder, scaling=kind)[0].train.x for kind in ("none", "contract"))
    assert scaled[:, 0] == pytest.approx((raw[:, 0] - 60) / 30, abs=1e-6)
    assert (scaled[:, 1:] == raw[:, 1:]).all()


def test_a_missing_folder_is_named_as_what_it_should_hold(tmp_path):
    with pytest.raises(FileError, match=r"brca\.csv") as error:
        tcga_sites(tmp_path)
    assert error.value.code == "missing-data"
