"""The card of a trained candidate, from its result and the problem."""

from __future__ import annotations

from lab import card as cards
from lab.problem import Problem, to_builtins
from trainer import lineage
from trainer.results import Result


def make_card(problem: Problem, result: Result, run_id: str, commit: str, dirty: bool) -> cards.Card:
    """The card of a trained candidate."""
    params = to_builtins(problem)
    return cards.Card(
        schema_version=cards.SCHEMA_VERSION,
        problem=problem.name,
        title=problem.title,
        features=[
            cards.Feature(
                name=name,
                label=f.label or name.replace("_", " "),
                type=f.type,
                min=f.min,
                max=f.max,
                nullable=f.nullable,
                levels=f.levels,
            )
            for name, f in ((name, problem.features[name]) for name in result.features)
        ],
        classes=cards.Classes(negative=problem.target.negative.label, positive=problem.target.positive.label),
        threshold=result.threshold,
        metrics={m: cards.Spread(mean=result.mean(m), sd=result.sd(m)) for m in result.folds},
        rows=result.rows,
        prevalence=result.prevalence,
        promises=result.promises,
        calibration=result.calibration,
        feature_reference=result.feature_reference,
        score_reference=result.score_reference,
        self_test=result.self_test,
        recipe=result.recipe,
        lineage=cards.Lineage(
            git_commit=commit,
            git_dirty=dirty,
            data_md5=result.data_md5,
            params_sha256=lineage.digest(params),
            code_sha256=result.code_sha256,
            fingerprint=result.fingerprint,
            run_id=run_id,
            packages=result.packages,
        ),
        params=params,
        model_sha256=result.model_sha256,
    )
