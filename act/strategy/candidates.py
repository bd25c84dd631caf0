"""The decisions around refinement and training: which candidates are refined, which go on, whether one is trained."""

from collections.abc import Sequence

from act.results.ptq_search import Candidate
from act.settings import CLEARLY, ROUNDING

_MOST_CHEAP = 2
# Of fp32's: by how much less a candidate must be expected to cost than another, for the difference to be seen.
_SEEN = 0.02


def worth_refining(
    candidates: Sequence[Candidate], most: int, least_drop: float, is_symmetry_of_use: bool = True
) -> list[str]:
    """Return the candidates to refine: the best, the best without zero points, the next ones, if they lose quality.

    What the user's own model was quantized with stays as it is: its weights may have been trained for it. And nothing
    can be won by one beside which another loses next to nothing, and is not clearly dearer.

    Args:
        candidates: of the search.
        most: how many at most.
        least_drop: those that lose no more quality are left out.
        is_symmetry_of_use: an engine that knows no zero points may turn out the fastest.
    """
    ranked = sorted((each for each in candidates if not each.is_given), key=lambda candidate: candidate.drop)
    symmetric = [candidate for candidate in ranked if candidate.symmetric]
    whole = [candidate for candidate in candidates if candidate.drop <= least_drop]

    def is_beaten(candidate: Candidate) -> bool:
        rivals = [other for other in whole if other.cost <= candidate.cost + _SEEN]
        return any(other.symmetric or not (candidate.symmetric and is_symmetry_of_use) for other in rivals)

    order = [*ranked[:1], *symmetric[:1], *ranked[1:]]
    able = [candidate for candidate in order if candidate.drop > least_drop and not is_beaten(candidate)]
    return list(dict.fromkeys(candidate.id for candidate in able))[:most]


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
