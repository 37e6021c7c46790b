"""Pages say what the kept tables say, in five minutes, and no number stands outside of it."""

import re

from tests.benchmarks.findings.pages import PAGES, pages
from tests.benchmarks.judging import filled


def test_pages_hold_what_the_kept_tables_say() -> None:
    every, used = pages(), set()
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        made = {name: words for name, words in every.items() if f"<!-- {name} -->" in text}
        assert made and filled(text, made) == text
        used |= set(made)
    assert used == set(every)


def test_findings_are_read_in_five_minutes() -> None:
    """A thousand words, and fifty rows of tables to look at."""
    text = re.sub(r"<!--.*?-->|\(\S+\)", "", PAGES[0].read_text(encoding="utf-8"))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    words = re.findall(r"[a-zA-Z]{2,}", "\n".join(set(text.splitlines()) - set(rows)))
    assert 400 < len(words) < 1000 and 20 < len(rows) <= 52


NUMBERS = re.compile(r"[+−-]\d+\.\d|\[\s*-?\d|\d+\.\d+ points|(?<!\d)\.\d\d")
"""What a result looks like: a signed decimal, an interval, a correlation."""


def test_no_result_stands_outside_of_what_is_made() -> None:
    """All else in findings, the account, and README's section of them, is words."""
    *whole, readme = (page.read_text(encoding="utf-8") for page in PAGES)
    own = readme[readme.index("## What was found") : readme.index("## In Python")]
    for text in (*whole, own):
        prose = re.sub(r"<!-- (.+?) -->.*?<!-- end of \1 -->", "", text, flags=re.S)
        assert prose != text and NUMBERS.findall(prose) == []
    assert NUMBERS.findall("+1.3 [-15.6, 18.1]") and NUMBERS.findall("r = .28")
