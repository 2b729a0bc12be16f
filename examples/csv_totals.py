"""Adds up the columns of a CSV file and writes a summary. A small batch job.

sandboxed-python --permission --allow-fs-read=examples/data/ --allow-fs-write=/tmp/totals/ \
    examples/csv_totals.py examples/data/orders.csv /tmp/totals/totals.json
"""

from __future__ import annotations

import collections
import csv
import json
import sys
from decimal import Decimal


def main(source: str, result: str) -> None:
    """Read the orders in ``source``, write totals per country to ``result``."""
    totals: dict[str, Decimal] = collections.defaultdict(Decimal)
    with open(source, encoding="utf-8", newline="") as file:
        for order in csv.DictReader(file):
            totals[order["country"]] += int(order["quantity"]) * Decimal(order["price"])
    with open(result, "w", encoding="utf-8") as file:
        json.dump({country: str(total) for country, total in sorted(totals.items())}, file, indent=2)
    print(f"{len(totals)} countries, {sum(totals.values())} in all")


if __name__ == "__main__":
    main(*sys.argv[1:3])
