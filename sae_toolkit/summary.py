"""What a report holds, on a terminal."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sae_toolkit.report import Report


def print_summary(report: "Report") -> None:
    """The headline scores of everything measured as a table."""
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Column, Table  # noqa: PLC0415

    measured = {named.name for named in report.scores}
    found = {(named.sae, named.name): named.score for named in report.scores}
    shown = [headline.name for headline in report.headlines if headline.name in measured]
    if shown:
        names = ("SAE" if report.saes else "of", *shown)
        table = Table(*(Column(name, overflow="fold") for name in names))
        for row in report.measured_names:
            cells = [found.get((row, name)) for name in shown]
            if any(cells):
                table.add_row(row, *("" if score is None else f"{score.value:.4g}" for score in cells))
        Console().print(table)
    for sae in report.saes:
        trained, found_l0 = found.get((sae.name, "l0_training")), found.get((sae.name, "l0"))
        if trained and found_l0 and abs(found_l0.value - trained.value) > 0.05 * trained.value:
            print(
                f"note: {sae.name} has {trained.value:.3g} active latents in training, but {found_l0.value:.3g} at "
                f"inference (more than 5 % apart)"
            )
