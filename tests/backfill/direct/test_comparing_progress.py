"""How far a comparison is: what a checkpoint says belongs together, whenever it is made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backfill.direct.checkpoint import CheckpointError
from backfill.direct.comparing_progress import ComparisonFile, Progress, Stage
from backfill.findings import Finding

WHICH = {"source": "a", "target": "b", "selection": {}, "--fix": False}
FINDING = Finding(3, b"\xff", "value", "byte 2 differs")


def in_the_middle() -> Progress:
    progress = Progress(share=0.25, seed=7)
    for number in range(3):
        page = progress.begin_page(3, b"%d" % (17 + number), 10)
        page.equal, page.suspects = 9, [(3, b"\xff%d" % number)]
        if number != 1:
            progress.looked_at(page)
    return progress


def test_pages_count_in_their_order() -> None:
    progress = in_the_middle()  # the second page is not looked at yet
    assert (progress.report.checked, progress.position.cursor, progress.position.scanned) == (9, b"17", 10)
    assert progress.suspects == [(3, b"\xff0")] and progress.suspected == 3
    progress.looked_at(progress.pages[0])
    assert (progress.report.checked, progress.position.cursor, progress.position.scanned) == (27, b"19", 30)
    assert progress.suspected == len(progress.suspects) == 3


def test_a_page_with_parts() -> None:
    progress = Progress()
    page = progress.begin_page(0, b"0", 5)
    page.pending += 2
    for _ in range(2):
        progress.looked_at(page)
        assert progress.position.done == set()
    progress.looked_at(page)
    assert progress.position.done == {0}


@pytest.mark.parametrize("mend", [False, True])
def test_what_is_saved_comes_back(tmp_path: Path, mend: bool) -> None:
    progress = in_the_middle()
    file = ComparisonFile(tmp_path / "c.json", WHICH)
    file.write(file.document(progress, ("x", "y"), [5], 123))
    saved = file.load()
    assert saved is not None
    assert (saved.run_ids, saved.client_ids, saved.findings_bytes) == (("x", "y"), [5], 123)
    assert saved.progress.document() == progress.document() and not saved.progress.pages
    progress.judged([FINDING], suspects=1, mend=mend)
    assert (progress.report.checked, progress.report.value, progress.suspects) == (10, 1, [])
    assert progress.mending == ([(3, b"\xff")] if mend else [])
    progress.go_on()
    file.write(file.document(progress, ("x", "y"), [], 200))
    saved = file.load()
    assert saved is not None and saved.progress.report.findings == [FINDING]
    assert (saved.progress.stage, saved.progress.position.scanned) == (Stage.TARGET, 0)
    assert saved.progress.document() == progress.document()
    saved.progress.mended(0)
    assert (saved.progress.report.fixed, saved.progress.mending) == (mend, [])


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    file = ComparisonFile(path, WHICH)
    assert file.load() is None
    whole = file.document(in_the_middle(), ("x", "y"), [5], 123)
    broken = [{**whole, "stage": "sideways"}, {**whole, "suspects": [[1, "zz"]]}, {**whole, "format": 2}, [], {}]
    for text in ["", "{", *map(json.dumps, broken)]:
        path.write_text(text)
        with pytest.raises(CheckpointError, match="is not a checkpoint of this version"):
            file.load()
    file.write(whole)
    with pytest.raises(
        CheckpointError, match=r"of another comparison \(with other --fix\): give the command as it was"
    ):
        ComparisonFile(path, {**WHICH, "--fix": True}).load()
