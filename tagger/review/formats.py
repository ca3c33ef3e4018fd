"""The forms in which open questions leave the program: a name and a function over questions for each.

A new format is one function here and one line in `FORMATS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import IO

from tagger.final import DISAGREEMENT
from tagger.review.queue import Question
from tagger.spreadsheet import write_csv

MAX_SHOP_WORD = 80  # characters that are shown of it

Format = Callable[[Iterable[Question], IO[bytes], str], int]
"""(questions, output, time of the export in UTC, RFC 3339) → number of questions written."""

CSV_COLUMNS = (
    "item_id",
    "image_uri",
    "image_sha256",
    "attribute",
    "prediction",
    "confidence",
    "alternatives",  # 'value:probability', most probable first, '; ' between them
    "reason",
    "action",  # these three are for the person
    "value",
    "reviewer",
    "bundle_id",
    "exported_at",  # makes the same answer to a later export a decision of its own
)


def write_questions_csv(questions: Iterable[Question], output: IO[bytes], exported_at: str) -> int:
    """One line per question, to be filled in with a spreadsheet and given to `tagger review apply`."""
    return write_csv(
        output,
        CSV_COLUMNS,
        (
            (
                question.item_id,
                question.image_uri,
                question.image_sha256,
                question.attribute,
                question.prediction,
                f"{question.confidence:.4f}",
                "; ".join(f"{value}:{p:.2f}" for value, p in question.alternatives),
                "; ".join(_in_words(reason, question) for reason in question.reasons),
                "",
                "",
                "",
                question.bundle_id,
                exported_at,
            )
            for question in questions
        ),
    )


def _in_words(reason: str, question: Question) -> str:
    """A reason; where the shop's own word is one, with what each of the two says."""
    if reason != DISAGREEMENT or question.shop_word is None:
        return reason
    said = " ".join(question.shop_word.split())[:MAX_SHOP_WORD]
    return f"{reason}: feed says {said}, model says {question.prediction} at {question.confidence:.2f}"


FORMATS: dict[str, Format] = {"csv": write_questions_csv}
RESERVED = ("html", "label-studio")
"""Formats that the command names already and that are not there yet."""
