"""The decisions between refinement and training: which candidates go on, and whether one of them is trained."""

from collections.abc import Sequence

from act.results.ptq_search import Candidate
from act.settings import CLEARLY, ROUNDING

_MOST_CHEAP = 2


def worth_exporting(candidates: Sequence[Candidate], max_quality_drop: float) -> list[str]:
    """Return the candidates that could win: the cheapest inside the budget; the best, which has most to spare; the best
    symmetric one, for engines that know no zero point; and the one that is quantized as the user's own model was."""
    ranked = sorted(candidates, key=lambda candidate: candidate.drop)
    inside = [candidate for candidate in ranked if candidate.drop <= max_quality_drop + ROUNDING]
    cheapest = sorted(inside, key=lambda candidate: candidate.cost)[:_MOST_CHEAP]
    symmetric = [candidate for candidate in ranked if candidate.symmetric]
    given = [candidate for candidate in ranked if candidate.is_given]
    return list(dict.fromkeys(candidate.id for candidate in [*given, *cheapest, *ranked[:1], *symmetric[:1]]))


def training_start(
    candidates: Sequence[Candidate],
    max_quality_drop: float,
    trains: bool,
    always: bool = False,
    pruned_lost: float = 0.0,
) -> tuple[str | None, str]:
    """Return the candidate that training starts from, or None, and the sentence that explains it.

    The strategy `trains` at all, or `always`, because the user asks for it; pruning lost so much quality before.
    """
    if not candidates:
        return None, "no training: there is no quantized candidate to train"
    best = max(candidates, key=lambda candidate: candidate.quality)
    if always:
        return best.id, f"training starts from {best.id}: params.yaml asks for it"
    if best.drop <= max_quality_drop + ROUNDING:
        lost = f"loses {best.drop:.4f}" if best.drop > 0 else "loses nothing"
        return None, f"no training: {best.id} {lost}, within the budget of {max_quality_drop:g}"
    missed = f"{best.id} loses {best.drop:.4f}, more than the budget of {max_quality_drop:g}"
    if not trains:
        return None, f"no training: {missed}, but the strategy does not train"
    if pruned_lost > CLEARLY * max_quality_drop + ROUNDING:
        return None, f"no training: {missed}, and pruning alone lost {pruned_lost:.4f}, too much to be won back"
    return best.id, f"training starts from {best.id}: {missed}"
