"""The study's parts, and how far a table has come; what the paper reports has the benchmark's shape."""

import json
from inspect import signature

import numpy as np

from antipure_lib.benchmark import paper, study
from antipure_lib.benchmark.tables import interval_of, select
from antipure_lib.benchmark.verdicts import claims
from antipure_lib.models.embedded import identities
from antipure_lib.protections.registry import PROTECTIONS
from antipure_lib.purifiers.registry import parse_purifier
from tools.study.sweep import OUT, trained_once

PEOPLE = identities()[: study.PEOPLE]


def test_every_cell_of_every_claim_is_in_the_study():
    cells = {(c.protect, c.purify, c.customize) for c in study.all_cells(PEOPLE)}
    for claim in claims().values():
        for contrast in claim:
            assert {(a, b, "lora") for _, a, b in contrast.cells} <= cells


def test_cells_are_named_as_the_library_names_things_and_come_once():
    cells = study.all_cells(PEOPLE)
    assert len(cells) == len(set(cells))
    assert {c.protect for c in cells} == set(PROTECTIONS)
    for name in {c.purify for c in cells}:
        parse_purifier(name)
    assert cells[: len(study.cells_of("main", PEOPLE))] == study.cells_of("main", PEOPLE)


def test_parts_are_repeated_with_other_seeds():
    parts = ["main", "dreambooth"]
    once = study.all_cells(PEOPLE, parts, seeds=[0])
    again = study.all_cells(PEOPLE, parts, seeds=[5])
    assert {c.seed for c in again} == {5} and [c._replace(seed=0) for c in again] == once
    rows = [c._asdict() for c in again]
    assert [line["finished"] for line in study.coverage(rows, PEOPLE, parts)] == [0, 0]
    repeated = study.coverage(rows, PEOPLE, parts, seeds=[5])
    assert [(line["part"], line["finished"], line["cells"]) for line in repeated] == [
        (part, n, n) for part in parts for n in [len(study.cells_of(part, PEOPLE, seeds=[5]))]
    ]


def test_every_protection_has_the_best_setting_that_the_sweep_found():
    rows = [json.loads(line) for line in OUT.read_text().splitlines()]
    swept = {row["protection"] for row in rows}
    assert swept >= set(study.TUNED) - {"antipure-pfg", "antipure-etg"}  # they have AntiPure's
    for name in swept:
        defaults = {key: p.default for key, p in signature(PROTECTIONS[name]).parameters.items()}
        settings = [row for row in rows if row["protection"] == name]
        if name == "pixel-ddpm":  # as AntiPure without guidance: with AntiPure's few noise steps
            settings = [row for row in settings if "t_max" not in row["options"]]
        best = max(settings, key=lambda row: row["latent_after"])["options"]
        best = {key: tuple(value) if isinstance(value, list) else value for key, value in best.items()}
        assert defaults | best == defaults | study.TUNED.get(name, {}), name


def test_a_surrogate_of_the_sweep_is_trained_once_for_equal_arguments(pictures):
    calls = []
    learn = trained_once(lambda pipe, images, **options: calls.append(options) or len(calls))
    a, b = pictures(2), pictures(2, seed=1)
    assert learn(None, a, steps=3, seed=0) == learn(None, a.clone(), seed=0, steps=3) == 1
    assert [learn(None, b, steps=3, seed=0), learn(None, a, steps=4, seed=0)] == [2, 3]
    assert learn(None, b, steps=3, seed=0) == 2 and len(calls) == 3


def test_coverage_counts_cells_and_whole_people():
    def row(cell):
        return cell._asdict()

    main = study.cells_of("main", PEOPLE)
    assert [line["finished"] for line in study.coverage([], PEOPLE)] == [0] * len(study.PARTS)
    first = study.coverage([row(c) for c in main if c.identity == "p01"] + [row(main[-1])], PEOPLE)[0]
    finished = len(main) // len(PEOPLE) + 1
    assert (first["cells"], first["finished"], first["people with all"]) == (len(main), finished, 1)
    whole = study.coverage([row(c) for c in study.all_cells(PEOPLE)], PEOPLE)
    assert all(line["finished"] == line["cells"] and line["people with all"] == 8 for line in whole)
    assert study.coverage([{**row(main[0]), "identity": "p12"}], PEOPLE)[0]["finished"] == 0


def test_the_papers_rows_are_read_by_the_tables():
    celeba = select(paper.MAIN, data="CelebA-HQ")
    assert min(celeba, key=lambda r: r["ism"])["protect"] == "antipure"
    assert interval_of(select(celeba, protect="mist"), "ism").mean == 0.6688
    curve = [
        interval_of(select(paper.BY_ITERATIONS, protect="antipure", purify=p), "ism").mean
        for p in paper.ITERATIONS
    ]
    assert curve == sorted(curve, reverse=True)
    first, *middle, last = select(paper.BY_ITERATIONS, protect="aspl")
    assert (first["fid"], last["brisque"]) == (124.62, 30.34)
    assert np.isnan([row["fid"] for row in middle]).all()
    assert {row["protect"] for row in paper.MAIN + paper.BY_ITERATIONS} <= set(PROTECTIONS)
