"""Items of a benchmark as one Parquet file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from epigone.files import write_aside


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a row an item: outputs as JSON texts, each metric a column `metric.NAME`."""
    metrics = dict.fromkeys(m for row in rows for m in row["metrics"])
    columns: dict[str, Any] = {
        name: pyarrow.array([row[name] for row in rows], type=pyarrow.string())
        for name in ("item", "part", "subject", "prompt_sha256", "target")
    }
    columns["outputs"] = pyarrow.array(
        [[o if isinstance(o, str) else json.dumps(o) for o in row["outputs"]] for row in rows],
        type=pyarrow.list_(pyarrow.string()),
    )
    for name in ("stops", "verdicts"):
        columns[name] = pyarrow.array(
            [list(row[name]) for row in rows], type=pyarrow.list_(pyarrow.string())
        )
    columns["learnt"] = pyarrow.array([bool(row["learnt"]) for row in rows])
    for metric in metrics:
        values = [row["metrics"].get(metric) for row in rows]
        plain = [float(v) if isinstance(v, bool | int | float) else None for v in values]
        columns[f"metric.{metric}"] = pyarrow.array(plain, type=pyarrow.float64())
    with write_aside(path) as f:
        pyarrow.parquet.write_table(pyarrow.table(columns), f)


def read_table(path: Path) -> list[dict[str, Any]]:
    """The inverse of `write_table`, metrics in one mapping."""
    found = []
    for row in pyarrow.parquet.read_table(path).to_pylist():
        metrics = {k.partition(".")[2]: v for k, v in row.items() if k.startswith("metric.")}
        rest = {k: v for k, v in row.items() if not k.startswith("metric.")}
        found.append(rest | {"metrics": {k: v for k, v in metrics.items() if v is not None}})
    return found
