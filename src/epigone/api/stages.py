"""Each stage as a function."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from epigone import clusters
from epigone.errors import CorpusError, UserError
from epigone.files import cache_root, read_jsonl, write_jsonl
from epigone.models import references
from epigone.models.in_use import use
from epigone.runs.checks import check_scorers
from epigone.runs.perform import perform, task_alone
from epigone.runs.resolve import World
from epigone.schema import Interval, Progress, Record, Sample, Score, silent
from epigone.study import train_file
from epigone.study.declare import Benchmark, Corpus, Toxicity, by_task
from epigone.study.identity import slug
from epigone.study.recipes import Recipe
from epigone.study.resolved import (
    benchmark_spec,
    continuations_spec,
    corpus_spec,
    data_spec,
    items_spec,
    one_recipe,
    scorer_spec,
)
from epigone.study.specs import (
    DataSpec,
    Kind,
    ModelSpec,
    RecipeSpec,
    ToxicitySpec,
    TrainSpec,
)
from epigone.study.style import ALL_STYLE_METRICS
from epigone.study.terms import Use, refuse, terms_in, terms_named
from epigone.study.values import Mistake, told


def build_corpus(
    files: Sequence[str | Path | Mapping[str, Any]],
    out: str | Path,
    *,
    kind: Kind = "broad",
    teacher: str = "unknown",
    licence: str = "",
    terms: str = "",
    held_out: int = 128,
    seed: int = 0,
    use: Use = "research",
    decontaminate: Sequence[str] = (),
    on: str = "",
    address: str = "",
    progress: Progress = silent,
    **settings: Any,
) -> Record:
    """Clean files of teacher text into a corpus folder; the stage behind `epigone corpus build`.

    A file is a reference, or a mapping with the keys of a study file's source. `settings` are
    those of a study file's corpus: languages, rules, mix, min_chars, max_chars, max_tokens.
    `decontaminate` names benchmarks whose items must not be in the corpus. `on` is local, or ray
    with a cluster's `address`, or on this machine without one; by default, what the environment
    says. The result is the same. Raises UserError, among them CorpusError where the terms forbid
    the use.
    """
    sources = [dict(f) if isinstance(f, Mapping) else str(f) for f in files]
    with _no_file():
        corpus = Corpus.model_validate(
            {"kind": kind, "from": sources, "held_out": held_out, **settings}
        )
        spec = corpus_spec(
            corpus, World(online=True), teacher=teacher, terms=terms, licence=licence, seed=seed
        )
    refuse("the corpus", terms_in(spec), use)
    with clusters.asking(on, address):
        inputs = {f"items_{task}": benchmark_items(task, progress) for task in decontaminate}
        # Rows may name teachers of their own.
        return perform(
            task_alone("corpus", spec, inputs, Path(out)),
            progress,
            lambda facts: refuse("rows of the corpus", terms_named(facts.get("by_terms", ())), use),
        )


def benchmark_items(task: str, progress: Progress = silent) -> Path:
    """A folder with the items of a benchmark, or of one of original data as nq_open=FOLDER."""
    task, _, data = task.partition("=")
    with _no_file():
        spec = items_spec(Benchmark(task=task, data=data), World(online=True))
    made = task_alone("items", spec, {}, cache_root() / "items" / task)
    folder = Path(made.folder).with_name(f"{slug(task)}-{made.hash[:16]}")
    use(folder)
    perform(replace(made, folder=str(folder)), progress)
    return folder


def corpus_stats(
    folder: str | Path,
    *,
    tokenizer: str = "",
    diversity: int = 0,
    exact: bool = False,
    progress: Progress = silent,
) -> tuple[dict[str, Any], Path]:
    """Numbers of a corpus folder, and the page that shows them, `folder`/stats.html.

    `tokenizer` is a model whose tokens are counted by role; `diversity` is how many first prompts
    are compared with one another, all of them with all if `exact`.
    """
    from epigone.corpus import diversity as alike
    from epigone.corpus import stats
    from epigone.corpus.statistics import first_prompts, told
    from epigone.report import corpus_page

    path = corpus_folder(folder)
    counter = references.locate(tokenizer, progress) / "tokenizer.json" if tokenizer else None
    found = stats(path, counter, progress)
    if diversity:
        queries = alike.sample(first_prompts(path), diversity)
        if len(queries) < 2:
            raise CorpusError("too few prompts to compare", value=len(queries))
        measured = alike.diversity(
            queries, exact=exact, progress=lambda share: progress(share, 1.0, "comparing prompts")
        )
        found["diversity"] = told(measured, queries, exact)
    return found, corpus_page.build(path.name, found, path.resolve() / "stats.html")


def train(
    base: str,
    corpus: str | Path,
    out: str | Path,
    *,
    amounts: Sequence[int],
    recipe: Mapping[str, Any] | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Record:
    """Train a base on nested amounts of a corpus folder; `out`/amount-N is the student of N tokens.

    `recipe` has the keys of a study file's recipe; its paths start at the current folder.
    """
    folder = corpus_folder(corpus)
    settings, replay = _recipe(recipe or {})
    wanted = tuple(sorted(set(amounts)))
    if len(wanted) > 1 and not settings.trunk:
        raise UserError(
            f"with a {settings.schedule} schedule each amount is a run of its own",
            value=", ".join(map(str, wanted)),
            fix="train one amount, or take schedule wsd",
        )
    spec = TrainSpec(base=_model(base), amounts=wanted, recipe=settings, seed=seed, replay=replay)
    return perform(task_alone("train", spec, {"corpus": folder}, Path(out)), progress)


def generate(
    model: str,
    prompts: str | Path,
    out: str | Path,
    *,
    n: int | None = None,
    max_new_tokens: int = 256,
    progress: Progress = silent,
) -> list[Sample]:
    """Answer a file of prompts with one model, greedy, and write the samples as JSONL."""
    from epigone.evaluation.answers import answer_prompts, read_prompts

    asked = read_prompts(Path(prompts))[:n]
    name = _model(model)
    folder = references.locate(model, progress)
    samples = answer_prompts(
        folder, asked, model=name.name, max_new_tokens=max_new_tokens, progress=progress
    )
    write_jsonl(Path(out), (s.to_json() for s in samples))
    return samples


def benchmark(
    model: str,
    tasks: Sequence[str | Mapping[str, Any]],
    out: str | Path | None = None,
    *,
    limit: int | None = None,
    progress: Progress = silent,
) -> list[Score]:
    """Scores of one model on benchmarks: names, or mappings with the keys of a study file's.

    Items go to folders in `out`; what one holds of the same model and settings is not done again.
    """
    named, world = _model(model, asked=out is not None), World(online=True)
    with _no_file():
        asked = [Benchmark.model_validate(by_task(task)) for task in tasks]
        specs = [benchmark_spec(one, named, items_spec(one, world), limit) for one in asked]
    scores: list[Score] = []
    for spec in specs:
        if out is None:
            from epigone.evaluation.benchmarks import measure
            from epigone.evaluation.target import target_of

            scores += measure(target_of(spec.model, {}, progress), spec, progress=progress).scores
            continue
        place = Path(out) / slug(spec.label)
        perform(task_alone("benchmark", spec, {}, place), progress)
        scores += map(Score.from_json, read_jsonl(place / "scores.jsonl"))
    return scores


def toxicity(
    model: str,
    out: str | Path,
    *,
    progress: Progress = silent,
    **settings: Any,
) -> list[Score]:
    """How toxic a model's continuations are; `settings` are those of a study file's toxicity.

    Continuations and what each scorer says of them go to folders in `out`, and are not made again.
    """
    named, world = _model(model, asked=True), World(online=True)
    with _no_file():
        asked = Toxicity.model_validate(settings)
        spec = continuations_spec(asked, named, data_spec(asked.prompts, world))
        scorers = [scorer_spec(scorer, world) for scorer in asked.scorers]
    check_scorers(asked.scorers, Path())
    said = Path(out) / "continuations"
    perform(task_alone("continuations", spec, {}, said), progress)
    scores: list[Score] = []
    for scorer in scorers:
        place = Path(out) / scorer.name
        judged = ToxicitySpec(model=named.name, scorer=scorer)
        perform(task_alone("toxicity", judged, {"continuations": said}, place), progress)
        scores += map(Score.from_json, read_jsonl(place / "scores.jsonl"))
    return scores


def style(
    teacher: str | Path,
    models: Sequence[str | Path],
    *,
    metrics: Sequence[str] = ALL_STYLE_METRICS,
    judged: str | Path | None = None,
) -> list[Score]:
    """Style metrics of files of samples against the teacher's file of samples.

    `judged` are scores that `judge` wrote of the same files, of which the tone is taken.

    A second sample of the teacher's is compared like a model's: its scores are what a perfect
    imitation would get.
    """
    from epigone.evaluation.style import style as measure

    paths = [Path(m) for m in models]
    told = None if judged is None else Path(judged)
    return measure(Path(teacher), paths, metrics=tuple(metrics), judged=told)


def interval(score: Score) -> Interval:
    """A score's value with its 95% interval, by the way that fits what its values are."""
    from epigone.findings.gaps import value_interval

    return value_interval(score)


def corpus_folder(path: str | Path) -> Path:
    """A corpus folder by path; raises CorpusError for anything else."""
    folder = Path(path)
    if not (folder / train_file.NAME).is_file():
        raise CorpusError(
            "not a corpus folder", value=str(path), fix="'epigone corpus build' makes one"
        )
    return folder


def _recipe(settings: Mapping[str, Any]) -> tuple[RecipeSpec, tuple[DataSpec, ...]]:
    with _no_file():
        return one_recipe(Recipe.model_validate(dict(settings)), World(online=True))


@contextmanager
def _no_file() -> Iterator[None]:
    """Tell a mistake without its place in a study file: there is none."""
    try:
        yield
    except ValidationError as error:
        raise told(error) from None
    except Mistake as mistake:
        raise mistake.error from None


def _model(ref: str, *, asked: bool = False) -> ModelSpec:
    if asked and ref.startswith("endpoint:"):
        where = str(references.parse(ref))
        name = where.rpartition("#")[2]
        return ModelSpec(kind="teacher", name=name, ref=where, fingerprint=where)
    world = World(online=True)
    return ModelSpec(
        kind="base", name=world.model_name(ref), ref=ref, fingerprint=world.fingerprint(ref)
    )
