"""How often the language rule is wrong, on 230 rows of ShareGPT that were labelled by hand.

    python bench/language.py

`language_labels.csv` has ids and labels only: en, other, mixed (a dialogue in two languages, where
either answer will do) and none (code, numbers). The rows were drawn at random from all, from those
that the rule drops, and from those of which a detector was unsure; each stratum stands for as many
rows as it was drawn from.
"""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

from epigone.corpus.language import language, prose
from epigone.corpus.readers import File
from epigone.corpus.rows import Row
from epigone.models.references import locate

# Rows of each stratum in the whole file, when the sample was drawn.
SIZES = {"random": 17_545, "flagged": 177, "unsure": 267}


def main() -> None:
    with open(Path(__file__).with_name("language_labels.csv"), newline="") as file:
        labels = {row["id"]: row for row in csv.DictReader(file)}
    heard: dict[str, str] = {}
    with File(locate("sharegpt-v3-part")) as rows:
        for row in rows:
            if isinstance(row, Row) and row.id in labels:
                heard[row.id] = language(prose(row.turns))
    print(f"{len(heard)} of {len(labels)} labelled rows found")
    print("| stratum | rows | en | other | mixed | none | en dropped | other kept |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for stratum, size in SIZES.items():
        own = {i: row for i, row in labels.items() if row["stratum"] == stratum and i in heard}
        count = Counter(row["label"] for row in own.values())
        dropped = {i for i in own if heard[i] not in ("", "en")}
        lost = sum(own[i]["label"] == "en" for i in dropped)
        kept = sum(row["label"] == "other" for i, row in own.items() if i not in dropped)
        print(
            f"| {stratum} ({size:,}) | {len(own)} | {count['en']} | {count['other']} | "
            f"{count['mixed']} | {count['none']} | {lost} | {kept} |"
        )


if __name__ == "__main__":
    main()
