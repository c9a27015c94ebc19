"""The study's parts, and how far a table has come; what the paper reports has the benchmark's shape."""

import json
from inspect import signature

import numpy as np
import pytest
import torch

from antipure_lib.benchmark import paper, study
from antipure_lib.benchmark.tables import interval_of, select
from antipure_lib.benchmark.verdicts import claims
from antipure_lib.customization.registry import CUSTOMIZERS
from antipure_lib.models.embedded import identities
from antipure_lib.protections.registry import PROTECTIONS
from antipure_lib.purifiers.registry import parse_purifier
from tools.study import budgets, equal_effect, sweep
from tools.study.lines import append, read

PEOPLE = identities()[: study.PEOPLE]


def test_every_cell_of_every_claim_is_in_the_study():
    cells = {(c.protect, c.purify, c.customize) for c in study.all_cells(PEOPLE)}
    for claim in claims().values():
        for contrast in claim:
            assert {(a, b, "lora") for _, a, b in contrast.cells} <= cells


def test_cells_are_named_as_the_library_names_things_and_come_once():
    cells = study.all_cells(PEOPLE)
    assert len(cells) == len(set(cells))
    assert {c.protect for c in cells} <= set(PROTECTIONS) and {c.customize for c in cells} <= set(CUSTOMIZERS)
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
    assert all(line["finished"] == line["cells"] > 0 for line in repeated)


def test_every_protection_has_the_best_setting_that_the_sweep_found():
    rows = [json.loads(line) for line in sweep.OUT.read_text().splitlines()]
    swept = {row["protection"] for row in rows}
    assert swept >= set(study.TUNED) - {"antipure-pfg", "antipure-etg"}  # they have AntiPure's
    for name in swept:
        defaults = {key: p.default for key, p in signature(PROTECTIONS[name].steps).parameters.items()}
        settings = [row for row in rows if row["protection"] == name]
        if name == "pixel-ddpm":  # as AntiPure without guidance: with AntiPure's few noise steps
            settings = [row for row in settings if "t_max" not in row["options"]]
        best = max(settings, key=lambda row: row["latent_after"])["options"]
        best = {key: tuple(value) if isinstance(value, list) else value for key, value in best.items()}
        assert defaults | best == defaults | study.TUNED.get(name, {}), name


def test_every_protection_has_the_arguments_that_the_tools_give_it():
    given = [(name, options) for name, own in sweep.OWN.items() for options in own + sweep.rules(name)]
    given += [(name, options) for name, _, options in budgets.settings()]
    given += [(name, options) for name, options, *_ in equal_effect.RUNS.values()]
    given += study.TUNED.items()
    for name, options in given:
        signature(PROTECTIONS[name].steps).bind_partial(**options)


def test_a_surrogate_of_the_sweep_is_trained_once_per_person_and_number_of_steps(monkeypatch):
    calls, attacked = [], []
    monkeypatch.setattr(
        sweep, "dreambooth", lambda _, a, steps, seed: calls.append((a, steps, seed)) or len(calls)
    )
    monkeypatch.setattr(sweep, "protect", lambda name, x, **given: attacked.append(given["surrogate"]) or x)
    monkeypatch.setattr(sweep, "effect", lambda protected, world: {})
    world = dict(x=torch.zeros(2, 3, 4, 4), set_a=["a", "b"], ddpm=None, pipe=None)
    for options in ({}, {"momentum": 0.9}, {"surrogate_steps": 100}):
        sweep.measure("fsmg", options, world, 16 / 255, 40)
    assert attacked == [1, 2, 1, 2, 3, 4]
    assert calls == [("a", 300, 0), ("b", 300, 0), ("a", 100, 0), ("b", 100, 0)]


def test_lines_go_on_after_a_crash(tmp_path):
    path = tmp_path / "sub" / "t.jsonl"
    rows = [{"run": name, "steps": 3} for name in ("a", "ü")]
    assert read(path, "run") == []
    append(path, rows[0])
    whole = path.read_text()
    for cut in ("", "{", '{"run": "b", "st', '{"run": "b"}'):
        path.write_text(whole + cut)
        assert read(path, "run") == rows[:1]
    append(path, rows[1])
    assert read(path, "run") == rows and path.read_text().count("\n") == 2


@pytest.mark.parametrize(
    "content",
    [b'{"a": 1}', b'{"a": 1}\n', b"{", b"\x89PNG\r\n\x1a\n", b"\n", b"run,steps\na,1\n", b'[{"run": 1}]\n'],
)
def test_another_kind_of_file_is_no_file_of_lines(content, tmp_path):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    for tool in (sweep, budgets, equal_effect):
        with pytest.raises(ValueError, match="config.json isn't a table of this tool"):
            tool.table(path)
    with pytest.raises(ValueError, match="config.json isn't a table of this tool"):
        equal_effect.run(path)
    assert path.read_bytes() == content
    path.write_bytes(b'{"run": 1}\n{"run": x}\n')
    with pytest.raises(ValueError, match="config.json, line 2 is broken"):
        read(path, "run")


def test_halving_follows_the_checkpoints_of_apgd():
    # Croce & Hein's checkpoints for 100 iterations, as their formula gives them.
    checkpoints = [22, 41, 57, 70, 80, 87, 93, 99]
    expected = [0.5 / 2 ** sum(w <= step for w in checkpoints) for step in range(100)]
    assert equal_effect.halving(0.25, 100) == pytest.approx(expected)
    assert equal_effect.halving(0.25, 1) == [0.5]


def test_coverage_counts_cells_and_whole_people():
    main = study.cells_of("main", PEOPLE)
    assert [line["finished"] for line in study.coverage([], PEOPLE)] == [0] * len(study.PARTS)
    first = study.coverage([c._asdict() for c in [*main[: len(main) // len(PEOPLE)], main[-1]]], PEOPLE)[0]
    finished = len(main) // len(PEOPLE) + 1
    assert (first["cells"], first["finished"], first["people with all"]) == (len(main), finished, 1)
    whole = study.coverage([c._asdict() for c in study.all_cells(PEOPLE)], PEOPLE)
    assert all(line["finished"] == line["cells"] and line["people with all"] == 8 for line in whole)
    assert study.coverage([main[0]._replace(identity="p12")._asdict()], PEOPLE)[0]["finished"] == 0


def test_the_papers_rows_are_read_by_the_tables():
    celeba = select(paper.MAIN, data="CelebA-HQ")
    assert min(celeba, key=lambda r: r["ism"])["protect"] == "antipure-paper"
    assert interval_of(select(celeba, protect="mist"), "ism").mean == 0.6688
    curve = select(paper.BY_ITERATIONS, protect="antipure-paper")
    assert [row["purify"] for row in curve] == list(paper.ITERATIONS)
    assert curve == sorted(curve, key=lambda row: -row["ism"])
    first, *middle, last = select(paper.BY_ITERATIONS, protect="aspl")
    assert (first["fid"], last["brisque"]) == (124.62, 30.34)
    assert np.isnan([row["fid"] for row in middle]).all()
    assert {row["protect"] for row in paper.MAIN + paper.BY_ITERATIONS} <= set(PROTECTIONS)
