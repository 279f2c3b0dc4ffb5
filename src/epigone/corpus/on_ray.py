"""The work on a corpus with Ray Data, on as many machines as a cluster has.

Workers read, clean, hash and compare; the text lies in blocks in the corpus's own folder, which all
machines must see. The process that asks holds slim entries and decides what needs all of them.
"""

from __future__ import annotations

import logging
import pickle
import shutil
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import lru_cache
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from epigone import clusters
from epigone.corpus import blocks, duplicates
from epigone.corpus.audit import Audit, Source
from epigone.corpus.blocks import Block, Chunk, Fault, Job, Selected
from epigone.corpus.clean import Work
from epigone.corpus.components import Pairs, components, groups, resolved
from epigone.corpus.contamination import Index, Item
from epigone.corpus.engine import STEPS, Passages
from epigone.corpus.reading import Reading
from epigone.corpus.selection import Entry
from epigone.corpus.store import Stored, unpacked
from epigone.errors import CorpusError, UserError
from epigone.files import SCRATCH
from epigone.study.specs import CorpusSpec

# Items of a file that are cleaned in one go.
_ITEMS = 1024
# Keys that are sorted at once in one process, and entries that are compared at once.
_KEYS, _TOGETHER = 4_000_000, 20_000
# Tasks for each processor where nothing is shuffled.
_EACH = 8
# What tasks hand on is put into objects of so many bytes: each chunk of a file into its own.
_OBJECT = 1 << 18


class OnRay:
    """See `Engine`; `address` is that of a cluster, or empty for one on this machine alone."""

    def __init__(self, spec: CorpusSpec, out: Path, address: str) -> None:
        self._spec, self._address = spec, address
        self._folder = out.resolve() / SCRATCH / "blocks"
        self._stack = ExitStack()
        self._blocks: list[str] = []
        # Where each block begins in the text of all, and with which entry.
        self._starts, self._firsts = [0], [0]
        self._places = np.empty(0, dtype=np.int64)
        self._all: list[Entry] = []

    def __enter__(self) -> Self:
        self._ray = self._stack.enter_context(clusters.start(self._address))
        self._processors = max(1, int(self._ray.cluster_resources().get("CPU", 1)))
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True, mode=0o700)
        self._stack.callback(self._leave)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _leave(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        with suppress(OSError):  # the stage has more there that it continues from
            self._folder.parent.rmdir()

    def entries(
        self, reading: Reading, audit: Audit, tokenizer_json: Path, items: Sequence[Item]
    ) -> list[Entry]:
        """See `Engine`."""
        tokenizer = tokenizer_json.resolve()
        parts = tuple(reading.parts)
        job = Job(
            metadata.version("epigone"),
            self._spec,
            parts,
            tokenizer,
            tuple(items),
            self._folder,
            _ITEMS,
        )
        self._job = self._ray.put(job)
        if parts:
            rows = [{"part": i} for i in range(len(parts))]
            # Without a processor of their own, the few that read leave all of them to cleaning.
            found = _dataset(rows, len(rows)).map_batches(
                _read, fn_args=(self._job,), batch_size=1, batch_format="pyarrow",
                num_cpus=0, concurrency=min(len(parts), self._processors),
            )  # fmt: skip
            found.context.target_max_block_size = _OBJECT
            cleaned = found.map_batches(
                _clean, fn_args=(self._job,), batch_size=1, batch_format="pyarrow", num_cpus=1
            )
            self._account(
                (made for table in _tables(cleaned) for made in _unpickled(table, "data")),
                reading,
                audit,
            )
        self._places = np.array([entry.place for entry in self._all], dtype=np.int64)
        return list(self._all)

    def _account(
        self, found: Iterable[tuple[int, Block | Fault]], reading: Reading, audit: Audit
    ) -> None:
        """Take in what became of the chunks, which come in the order of the files."""
        source: Source | None = None
        now = -1
        # The same short texts stand on many entries.
        ties: dict[str, str] = {}
        for number, made in found:
            part = reading.parts[number]
            if isinstance(made, Fault):
                error = made.error()
                if not isinstance(error, CorpusError):
                    raise error
                reading.skip(part, error)
                continue
            if not (self._folder / f"{made.name}.text").exists():
                raise UserError(
                    "a machine of the cluster writes where this one does not see it",
                    value=str(self._folder),
                    fix="make the corpus in a folder that all of them share",
                )
            if number != now or source is None:
                source, now = reading.source(part, made.format, made.container), number
            source.add(made.source)
            audit.add(made.audit)
            reading.tell(part, source.last_whole_end, source)
            for entry in made.entries:
                tie = ties.setdefault(entry.rank[3], entry.rank[3])
                place = self._starts[-1] + entry.place
                self._all.append(replace(entry, place=place, rank=(*entry.rank[:3], tie)))
            self._blocks.append(made.name)
            self._starts.append(self._starts[-1] + made.size)
            self._firsts.append(len(self._all))

    def copies(self, rule: str, entries: list[Entry]) -> duplicates.Sorted:
        """See `Engine`."""
        if rule == "same_query":
            return STEPS[rule](entries, self.query)
        longest = rule == "forks"
        by_place = sorted(entries, key=lambda entry: entry.place)
        found = self._pairs(rule, by_place)
        if not len(found.places):
            return resolved(by_place, [], longest)
        nodes, labels = components(found)
        into = _partitions(len(nodes), _TOGETHER)
        compared = (
            self._chosen(nodes, groups(labels, _TOGETHER), tasks=into)
            .map_batches(_together, fn_args=(self._job, rule), **_ONE)
            .groupby("group", num_partitions=into)
            .map_groups(_decided, fn_args=(rule,), batch_format="pyarrow")
        )
        copies = [
            pair
            for table in _tables(compared)
            for pair in zip(table["copy"].to_pylist(), table["original"].to_pylist(), strict=True)
        ]
        return resolved(by_place, copies, longest)

    def _pairs(self, rule: str, entries: Sequence[Entry]) -> Pairs:
        """Who shares an exchange, or a band, with whom, found by a shuffle of these."""
        each = (entry.length if rule == "forks" else duplicates.BANDS for entry in entries)
        into = _partitions(sum(each), _KEYS)
        places = np.array([entry.place for entry in entries], dtype=np.int64)
        shuffled = (
            self._chosen(places, tasks=into)
            .map_batches(_shared_keys, fn_args=(self._job, rule, into), **_ONE)
            .groupby("partition", num_partitions=into)
            .map_groups(_sharing, batch_format="pyarrow")
        )
        tables = [
            (table["place"].to_numpy(), table["first"].to_numpy()) for table in _tables(shuffled)
        ]
        nothing = np.empty(0, dtype=np.int64)
        return Pairs(
            np.concatenate([nothing, *(places for places, _ in tables)]),
            np.concatenate([nothing, *(firsts for _, firsts in tables)]),
        )

    def passages(self, entries: Sequence[Entry], items: Sequence[Item]) -> Passages:
        """See `Engine`."""
        places = np.sort(np.array([entry.place for entry in entries], dtype=np.int64))
        asked = self._ray.put(tuple(items))
        found = self._chosen(places, tasks=_EACH * self._processors).map_batches(
            _holding, fn_args=(self._job, asked), **_ONE
        )
        return {
            place: pickle.loads(runs)
            for table in _tables(found)
            for place, runs in zip(
                table["place"].to_pylist(), table["runs"].to_pylist(), strict=True
            )
        }

    def get(self, entry: Entry) -> Stored:
        """See `Engine`."""
        number = bisect_right(self._starts, entry.place) - 1
        with open(self._folder / f"{self._blocks[number]}.text", "rb") as file:
            file.seek(entry.place - self._starts[number])
            return unpacked(file)

    def query(self, entry: Entry) -> str:
        """See `Engine`."""
        return self.get(entry).query

    def _chosen(
        self, places: NDArray[np.int64], own: NDArray[np.int64] | None = None, *, tasks: int
    ) -> Any:
        # No more than are of use: what a shuffle has to remember grows with the square of them.
        return _dataset(list(self._selected(places, own)), max(tasks, self._processors))

    def _selected(
        self, places: NDArray[np.int64], own: NDArray[np.int64] | None = None
    ) -> Iterator[dict[str, bytes]]:
        """The blocks in which places lie, which are in order, each with its entries' numbers."""
        at = np.searchsorted(self._places, places)
        cuts = np.searchsorted(at, self._firsts)
        for i, (begin, end) in enumerate(pairwise(cuts)):
            if begin < end:
                chosen = Selected(
                    self._blocks[i], self._starts[i], at[begin:end] - self._firsts[i],
                    None if own is None else own[begin:end],
                )  # fmt: skip
                yield {"selected": pickle.dumps(chosen, protocol=5)}


def _dataset(rows: Sequence[dict[str, Any]], tasks: int) -> Any:
    import ray.data
    from ray.data.context import ShuffleStrategy

    # It tells of every plan and task, and nobody asked.
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    made = ray.data.from_items(list(rows), override_num_blocks=min(len(rows), tasks))
    made.context.execution_options.preserve_order = True
    made.context.enable_progress_bars = False
    made.context.shuffle_strategy = ShuffleStrategy.SORT_SHUFFLE_PULL_BASED
    return made


def _partitions(n: int, most: int) -> int:
    return max(1, -(-n // most))


_ONE = {"batch_size": 1, "batch_format": "pyarrow"}


def _tables(dataset: Any) -> Iterator[Any]:
    yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow")


def _unpickled(table: Any, column: str) -> Iterator[Any]:
    return map(pickle.loads, table[column].to_pylist())


# What follows runs in the workers. What a job needs is read once in each process.


@lru_cache(maxsize=1)
def _known(reference: Any) -> Job:
    import ray

    job: Job = ray.get(reference)
    own = metadata.version("epigone")
    if job.version != own:
        raise UserError(
            f"a machine of the cluster has Epigone {own}, this one has",
            value=job.version,
            fix="install the same version on all of them",
        )
    return job


@lru_cache(maxsize=1)
def _work(reference: Any) -> Work:
    job = _known(reference)
    return Work(job.spec, job.tokenizer_json, job.items)


@lru_cache(maxsize=1)
def _index(reference: Any) -> Index:
    import ray

    return Index(ray.get(reference))


def _read(table: Any, job: Any) -> Iterator[Any]:
    for part in table["part"].to_pylist():
        for chunk in _chunks(part, job):
            yield _table({"data": [pickle.dumps((part, chunk), protocol=5)]})


def _chunks(part: int, job: Any) -> Iterator[Chunk | Fault]:
    try:
        yield from blocks.chunks(part, _known(job))
    except UserError as error:
        yield Fault(error.what, error.value, error.fix)


def _clean(table: Any, job: Any) -> Any:
    made = []
    for part, chunk in _unpickled(table, "data"):
        if isinstance(chunk, Chunk):
            try:
                chunk = blocks.block(chunk, _known(job), _work(job))
            except UserError as error:
                chunk = Fault(error.what, error.value, error.fix)
        made.append(pickle.dumps((part, chunk), protocol=5))
    return _table({"data": made})


def _shared_keys(table: Any, job: Any, rule: str, into: int) -> Iterator[Any]:
    for chosen in _unpickled(table, "selected"):
        yield _table(blocks.shared_keys(chosen, _known(job), rule, into))


def _sharing(table: Any) -> Any:
    return _table(blocks.sharing(table["key"].to_numpy(), table["place"].to_numpy()))


def _together(table: Any, job: Any, rule: str) -> Iterator[Any]:
    for chosen in _unpickled(table, "selected"):
        yield _table(blocks.together(chosen, _known(job), rule))


def _decided(table: Any, rule: str) -> Any:
    return _table(blocks.decided(table["entry"].to_pylist(), table["opening"].to_pylist(), rule))


def _holding(table: Any, job: Any, items: Any) -> Iterator[Any]:
    for chosen in _unpickled(table, "selected"):
        yield _table(blocks.holding(chosen, _known(job), _index(items)))


def _table(columns: dict[str, Any]) -> Any:
    import pyarrow as pa

    types = {"data": pa.binary(), "entry": pa.binary(), "runs": pa.binary(), "opening": pa.string()}
    return pa.table({k: pa.array(v, types.get(k)) for k, v in columns.items()})
