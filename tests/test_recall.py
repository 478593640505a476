"""The recall bench: what it counts, and that what it promises is found. The data is not shipped."""

from __future__ import annotations

import pytest

from benchmarks import recall

TALK = {
    "sample_id": "talk-1",
    "conversation": {
        "speaker_a": "Ada",
        "session_2_date_time": "later",
        "session_2": [{"speaker": "Ada", "dia_id": "D2:1", "text": "Tea?", "blip_caption": "a cup"}],
        "session_1": [
            {"speaker": "Ada", "dia_id": "D1:1", "text": "What did you research?"},
            {"speaker": "Bob", "dia_id": "D1:2", "text": "Adoption agencies."},
        ],
    },
    "qa": [
        {"question": "What did Bob research?", "category": 1, "evidence": ["D1:2; D:2:01", "D9:9"]},
        {"question": "Nothing?", "category": 5, "evidence": ["D7:7"]},
    ],
}


def test_evidence_is_found_in_malformed_texts_and_questions_without_any_are_left_out():
    talk = recall._conversation(TALK)
    assert [turn.key for turn in talk.turns] == ["01/000", "01/001", "02/000"]
    assert talk.turns[2].content == {"speaker": "Ada", "text": "Tea?", "caption": "a cup"}
    (asked,) = talk.questions
    assert (asked.turns, asked.sessions) == ({"01/001", "02/000"}, {"01", "02"})


def test_measures_are_what_their_names_say():
    found = [(frozenset("ab"), list("axb")), (frozenset("c"), list("xyc")), (frozenset("d"), [])]
    assert recall.recall(found, 2) == pytest.approx({"any": 100 / 3, "all": 0, "mean": 50 / 3})
    assert recall.recall(found, 3) == pytest.approx({"any": 200 / 3, "all": 200 / 3, "mean": 200 / 3})


def test_a_fork_and_an_earlier_version_answer_alike():
    talk = recall._conversation(TALK)
    for row in recall.ROWS:
        assert recall.is_the_same_elsewhere(talk, row)


def test_without_the_data_it_says_that_it_was_skipped(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(recall, "DATA", tmp_path / "none.json")
    assert recall.main([]) == 0
    assert "SKIPPED" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif(not recall.DATA.is_file(), reason=f"LoCoMo is not there: {recall.DATA}")
@pytest.mark.parametrize(
    ("row", "cut", "measure", "least"),
    [
        (recall.Configuration("turn"), 10, "mean", 58),
        (recall.Configuration("turn", search={"context": 2}), 10, "mean", 72),
        (recall.Configuration("session"), 5, "any", 91),
    ],
    ids=str,
)
def test_what_is_promised_is_found(row: recall.Configuration, cut: int, measure: str, least: float):
    found, _ = recall.measure(recall.load(recall.DATA), row)
    assert recall.recall(recall.wanted(found, row.unit), cut)[measure] >= least
