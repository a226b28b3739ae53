"""The held-out text of a source that reads in groups, as whole rows: what stands around a token is beside it."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from jaxtyping import Float
from torch import Tensor

from sae_toolkit.activations.shuffle import GroupReader, GroupRows, count_excluded, windows_of_pass
from sae_toolkit.activations.source import TextRows

NOTHING: Mapping[str, Tensor] = MappingProxyType({})


def held_out_groups(reader: GroupReader) -> Iterator[tuple[int, int]]:
    """Window (its first document) and number of every group of the eval split, in the order of its streams."""
    for start, extent in windows_of_pass(reader, "eval"):
        for group in range(extent.n_groups):
            yield start, group


def text_rows(group: GroupRows, beside: Mapping[str, Float[Tensor, "rows context _"]] = NOTHING) -> TextRows:
    """A group, whose positions begin anew with every row, as rows."""
    n_rows = int((group.positions == 0).sum())
    shape = (n_rows, len(group.positions) // n_rows)
    hit, excluded = count_excluded(group)
    return TextRows(
        activations=group.activations.detach().float().view(*shape, -1),
        token_ids=group.token_ids.long().view(shape),
        document_ids=group.document_ids.long().view(shape),
        kept=~hit.view(shape),
        excluded=excluded,
        beside=beside,
    )


def cached_rows(reader: GroupReader) -> Iterator[TextRows]:
    """All held-out rows of a reader that reads nothing besides its own sites."""
    for start, group in held_out_groups(reader):
        yield text_rows(reader.read_group_rows("eval", start, group))
