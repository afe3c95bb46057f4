"""Choose a threshold: print what each would do, propose one, and set it."""

import json
from http.client import HTTPException
from typing import Annotated
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import typer
from rich.table import Table

from ..errors import BadInput, BadSetting, Unavailable, count
from ..model.content import find_card, read_model_file
from ..probe import base_url
from ..serving.evidence import gather
from ..serving.proposals import Cost, Evidence, Interval, Step
from ..settings import Settings
from ..state.audit import read_choice
from ..state.feedback.store import FILE_NAME as FEEDBACK_NAME
from ..state.feedback.store import FeedbackStore, open_feedback
from ..state.records import FILE_NAME as RECORDS_NAME
from ..state.records import Records, open_records
from ..threshold_choice import ThresholdChoice
from . import output

cli = typer.Typer()

_DAYS = {"hour": 1 / 24, "day": 1, "week": 7, "month": 30}

_SECONDS = 30
"""How long the service may take to set a threshold in all workers."""

_NO_CHOICE = "say what to choose by: --share, --budget, --cost or --recall"


@cli.command("threshold")
def choose_threshold(  # noqa: PLR0913, PLR0917 - the options of the command
    share: Annotated[
        float | None, typer.Option(help="Flag this share (0 to 1) of rows like training's.")
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="Flag so many rows, as 20/day, 5/hour or 100/week.")
    ] = None,
    cost: Annotated[
        str | None,
        typer.Option(help="Cost least on labelled rows; fp=1,fn=50: a false alarm, a miss."),
    ] = None,
    recall: Annotated[
        float | None, typer.Option(help="Find this share (0 to 1) of the labelled outliers.")
    ] = None,
    rate: Annotated[
        str | None, typer.Option(help="Rows to expect, as 50000/day; by default as recorded.")
    ] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Set it in the running service, by the admin route.")
    ] = False,
) -> None:
    """Print what each threshold would flag, and propose one; the service may be running."""
    if [share, budget, recall].count(None) < 2:
        raise BadInput("choose by one of --share, --budget and --recall")
    settings, prices = Settings.read(), parse_cost(cost)
    if apply and not any(one is not None for one in (share, budget, recall, cost)):
        raise BadInput(_NO_CHOICE)
    evidence, now, version = _look(settings, rate)
    proposed = _propose(evidence, share, budget, prices, recall)
    _show_ladder(evidence, now, proposed, prices)
    _tell_sources(evidence)
    if proposed is None:
        typer.echo(f"The threshold is {now:g}. To have one proposed, {_NO_CHOICE}.")
        return
    choice = ThresholdChoice(proposed.threshold) if share is None else ThresholdChoice(share=share)
    typer.echo(_describe(proposed, choice))
    if apply:
        typer.echo(_apply(settings, choice, version))
    else:
        typer.echo(f"Set it: repeat this with --apply, or start with {_as_setting(choice)}")


def parse_rate(text: str, option: str) -> float:
    """Return rows a day.

    >>> parse_rate("140/week", "--budget"), parse_rate("20", "--budget")
    (20.0, 20.0)
    """
    number, _, unit = text.partition("/")
    try:
        rows = float(number)
        days = _DAYS[unit.strip().removeprefix("per ") or "day"]
    except (ValueError, KeyError) as error:
        raise BadInput(
            f"{option} {text} is not a number of rows a day, as in 20/day; units are "
            f"{', '.join(_DAYS)}"
        ) from error
    if not 0 < rows < float("inf"):
        raise BadInput(f"{option} {text} is not above 0")
    return rows / days


def parse_cost(text: str | None) -> Cost | None:
    """Return the cost of a false alarm and of a missed outlier.

    >>> parse_cost("fn=50, fp=1")
    Cost(fp=1.0, fn=50.0)
    """
    if text is None:
        return None
    try:
        parts = dict(part.split("=") for part in text.replace(" ", "").split(","))
        cost = Cost(**{name: float(value) for name, value in parts.items()})
    except (ValueError, TypeError) as error:
        raise BadInput(
            f"--cost {text} is not as in fp=1,fn=50: the cost of a false alarm and of a miss"
        ) from error
    if not all(0 <= value < float("inf") for value in cost):
        raise BadInput(f"--cost {text} has a cost that is not a number from 0 up")
    return cost


def _look(settings: Settings, rate: str | None) -> tuple[Evidence, float, str]:
    """Return what is known of the scores, the threshold now, and the model's version."""
    file = read_model_file(settings.model)
    card, _ = find_card(file, settings.require_card)  # all that is needed: the forest stays closed
    now = read_choice(settings.state_dir, file.sha256, settings.choice)
    a_day = None if rate is None else parse_rate(rate, "--rate")
    evidence = gather(card, file.version, *_open_state(settings), a_day)
    return evidence, _as_threshold(now, evidence), file.version


def _open_state(settings: Settings) -> tuple[Records | None, FeedbackStore | None]:
    """Return the record and the feedback of the state folder, as far as there are any."""
    folder = settings.state_dir
    records = open_records(folder) if (folder / RECORDS_NAME).exists() else None
    feedback = None
    if (folder / FEEDBACK_NAME).exists():
        feedback = open_feedback(folder, settings.window)
    return records, feedback


def _propose(
    evidence: Evidence,
    share: float | None,
    budget: str | None,
    cost: Cost | None,
    recall: float | None,
) -> Step | None:
    """Return what the threshold of the choice would do; None without a choice."""
    if share is not None:
        return evidence.at_share(share)
    if budget is not None:
        return evidence.at_budget(parse_rate(budget, "--budget"))
    if recall is not None:
        return evidence.at_recall(recall)
    return None if cost is None else evidence.at_cost(cost)


def _show_ladder(evidence: Evidence, now: float, proposed: Step | None, cost: Cost | None) -> None:
    """Print a line for each threshold, the lowest first; columns without figures are left out."""
    marks = {now: "now"}
    if proposed is not None:
        marks[proposed.threshold] = "proposed" if proposed.threshold != now else "now, proposed"
    ladder = {step.threshold: step for step in evidence.ladder(cost)}
    steps = ladder | {threshold: evidence.step(threshold, cost) for threshold in marks}
    columns = {
        "threshold": [f"{threshold:.4f}" for threshold in sorted(steps)],
        "of training": [_percent(steps[one].promised) for one in sorted(steps)],
        "of recorded": [_percent(steps[one].recorded) for one in sorted(steps)],
        "a day": [_number(steps[one].per_day) for one in sorted(steps)],
        "precision": [_interval(steps[one].precision) for one in sorted(steps)],
        "recall": [_interval(steps[one].recall) for one in sorted(steps)],
        "cost of 1,000": [_number(steps[one].cost) for one in sorted(steps)],
        "": [marks.get(one, "") for one in sorted(steps)],
    }
    shown = {name: cells for name, cells in columns.items() if any(cells)}
    table = Table(box=None)
    for name in shown:
        table.add_column(name, overflow="fold")  # a narrow terminal cuts no figure
    for cells in zip(*shown.values(), strict=True):
        table.add_row(*cells)
    output.show(table)


def _tell_sources(evidence: Evidence) -> None:
    """Print what each column of the ladder rests on, and what is not known."""
    if evidence.pvalues is None:
        typer.echo(f"Training: nothing is known, because {evidence.without}.")
    else:
        typer.echo(f"Training: {count(evidence.pvalues.rows, 'row')}, scored out of bag.")
    rows = len(evidence.recorded)
    if rows or evidence.rate:
        rate = "too few to know the rate" if not evidence.rate else f"{evidence.rate:,.0f} a day"
        typer.echo(f"Recorded: {count(rows, 'row')} of this model, {rate}.")
    else:
        typer.echo("Recorded: no rows of this model, so the rows a day are not known (--rate).")
    labels = evidence.labels
    if labels is None:
        typer.echo("Labels: none; train with --label, or send feedback, for precision and recall.")
        return
    outliers = count(labels.outliers, "outlier")
    typer.echo(
        f"Labels: {labels.rows:,} {labels.source}, {outliers} among them; intervals of 95 %."
    )
    if labels.all_flagged:
        typer.echo(
            "Recall is not known: only flagged rows have a truth. Send the truth of some others, "
            "chosen at random."
        )


def _describe(step: Step, choice: ThresholdChoice) -> str:
    """Return in a sentence what a proposed threshold does."""
    parts = []
    if step.promised is not None:
        parts.append(f"flags {_percent(step.promised)} of rows like training's")
    if step.recorded is not None:
        parts.append(f"{_percent(step.recorded)} of the recorded ones")
    if step.per_day is not None:
        parts.append(f"{_number(step.per_day)} rows a day")
    for name, interval in (("precision", step.precision), ("recall", step.recall)):
        if interval is not None:
            parts.append(f"{name} {_interval(interval)}")
    what = f"the share {choice.share:g}, now the threshold" if choice.share else "the threshold"
    return f"Proposed: {what} {step.threshold:.6g}: {', '.join(parts)}."


def _as_threshold(choice: ThresholdChoice, evidence: Evidence) -> float:
    if choice.share is None:
        return choice.threshold or 0.0
    return evidence.at_share(choice.share).threshold


def _as_setting(choice: ThresholdChoice) -> str:
    if choice.share is None:
        return f"ISOSERVE_THRESHOLD={choice.threshold!r}"
    return f"ISOSERVE_OUTLIER_SHARE={choice.share!r}"


def _apply(settings: Settings, choice: ThresholdChoice, version: str) -> str:
    """Set a choice by the admin route, for this version of the model; return what was changed."""
    token = settings.read_admin_token()
    if not token:
        raise BadSetting(
            "--apply needs the service's ISOSERVE_ADMIN_TOKEN (or _FILE); without one, start the "
            f"service with {_as_setting(choice)}"
        )
    base = base_url(settings.host, settings.port)
    what = {"threshold": choice.threshold} if choice.share is None else {"share": choice.share}
    request = Request(  # noqa: S310 - http, to the service of these settings
        f"{base}/v2/repository/models/{settings.model_name}/threshold",
        json.dumps(what | {"model_version": version}).encode(),
        {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    try:
        with urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310
            changed = json.load(answer)
    except HTTPError as error:
        raise Unavailable(f"{base} refused: {_read_refusal(error)}") from error
    except (URLError, HTTPException, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise Unavailable(
            f"no isoserve answers at {base} ({reason}): start it first, or start it with "
            f"{_as_setting(choice)}"
        ) from error
    before = changed["former"]["threshold"]
    return f"Set: {base} flags below {changed['threshold']:.6g}, before below {before:.6g}."


def _read_refusal(error: HTTPError) -> str:
    """Return the sentence of a refusal."""
    try:
        return str(json.load(error)["error"])
    except (ValueError, KeyError, TypeError):
        return f"{error.code} {error.reason}"


def _percent(share: float | None) -> str:
    """Return a share in percent, to three digits.

    >>> _percent(0.004999), _percent(0.25)
    ('0.5 %', '25 %')
    """
    return "" if share is None else f"{100 * share:.3g} %"


def _number(value: float | None) -> str:
    """Return a number to three digits, as people write it.

    >>> _number(12345.6), _number(0.12345)
    ('12,346', '0.123')
    """
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _interval(found: Interval | None) -> str:
    return "" if found is None else f"{found.share:.2f} ({found.low:.2f}-{found.high:.2f})"
