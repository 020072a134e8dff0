"""What the chart asks of the ward in the present band, as keys of the texts.

Source: Royal College of Physicians. National Early Warning Score (NEWS) 2: Standardising the assessment of
acute-illness severity in the NHS. London: RCP, 2017, charts 3 and 4. The sentences are in our own words; a
ward that has agreed on another response follows its own.
"""

from samd_gateway.ward.answers import WardCard

BANDS = ("low", "low-medium", "medium", "high")
POSSIBLE = ("zero", "low", "medium", "high")
"""By the class of the score; a single sign of 3 points cannot be told from a class."""


def advice(card: WardCard) -> tuple[str | None, str | None]:
    """(for what is certain, for what is possible as well): None where there is nothing to say."""
    if not card.current or card.news2 is None or card.news2.band not in BANDS:
        return None, None
    certain = card.news2.band if card.news2.low > 0 else "zero"
    possible = POSSIBLE[card.rule_severity_possible or 0]
    ranks = ("zero", *BANDS)
    return certain, possible if ranks.index(possible) > ranks.index(certain) else None
