"""Dealing whole groups (lesions, or patients) to parts, so that every part holds every class wherever that is possible.

A group may hold images of several classes: a patient with ten common lesions and a rare one. It is dealt with its
rarest class, the rarest classes first (the greedy order of Sechidis, Tsoumakas & Vlahavas, "On the stratification of
multi-label data", ECML 2011), so that the few groups that carry a rare class are spread before the many that do not.
A greedy may still leave a part without a class. Then groups are moved, and where no move helps, a complete search says
whether any division exists.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from dermafuse.errors import DataError

Ints = npt.NDArray[np.int64]

#: States that the search looks at before it gives up. Reached by no data that was tried: a class with so many carriers
#: that the search becomes long is one whose parts are easily filled.
_MOST_STATES: Final = 100_000


@dataclass(frozen=True, eq=False)
class Groups:
    """Groups in the order of chance of a seed.

    Attributes:
        names: their ids.
        classes: the classes that occur, by name.
        images: int64 (groups, classes), images of each class.
        word: what a group is: lesion, patient or group.
    """

    names: tuple[str, ...]
    classes: tuple[str, ...]
    images: Ints
    word: str = "lesion"

    @property
    def carriers(self) -> Ints:
        """How many groups hold each class, int64 (classes,)."""
        return np.asarray((self.images > 0).sum(axis=0), np.int64)

    def refuse_too_few(self, parts: int, words: str, where: str = "") -> None:
        """Refuse a class that fewer groups hold than there are ``parts``, which share none.

        Args:
            parts: how many.
            words: the same for the message, such as "2 parts that share none".
            where: where the groups were counted, such as " in training".

        Raises:
            DataError: with the class, how many groups hold it, and what to do.
        """
        small = {code: n for code, n in zip(self.classes, self.carriers.tolist(), strict=True) if n < parts}
        if small:
            (code, count), *others = small.items()
            also = "".join(f", '{other}' has {n}" for other, n in others)
            fewer = ", make fewer parts (fewer --folds, or --set tuning_fraction=0)" if parts > 2 else ""
            raise DataError(
                f"Class '{code}' has {count} {self.word}(s){where}{also}, too few for {words}; add images{fewer} or "
                "leave the class out."
            )

    def strata(self) -> list[tuple[int, Ints]]:
        """Return, in the order in which they are dealt, a class and the groups of which it is the rarest."""
        carriers = self.carriers
        rank = np.empty(len(carriers), np.int64)
        rank[np.lexsort((np.arange(len(carriers)), carriers))] = np.arange(len(carriers))
        home = np.where(self.images > 0, rank, len(rank)).argmin(axis=1)
        # Where no group is mixed, classes do not meet, and the order of names is kept: it breaks ties between folds.
        mixed = bool(((self.images > 0).sum(axis=1) > 1).any())
        order = np.argsort(rank) if mixed else np.arange(len(rank))
        return [(int(number), np.flatnonzero(home == number)) for number in order]


def groups_of(table: pd.DataFrame, seed: int, word: str = "lesion") -> Groups:
    """Return the groups of a table with ``lesion_id`` and ``label``, ordered by ``sha256(seed, id)``."""
    counts = pd.crosstab(table["lesion_id"], table["label"])
    names = [str(name) for name in counts.index]
    chance = [hashlib.sha256(f"{seed}:{name}".encode()).digest() for name in names]
    order = sorted(range(len(names)), key=chance.__getitem__)
    return Groups(
        tuple(names[place] for place in order), tuple(map(str, counts.columns)), counts.to_numpy(np.int64)[order], word
    )


def deal_share(groups: Groups, fraction: float) -> Ints:
    """Return the part of each group: 1 for about ``fraction`` of the images of each class, 0 for the others.

    In the order of chance a group goes to part 1 where that brings the images of its rarest class nearer to the share.
    A class may be missing on a side: see ``cover``.
    """
    part = np.zeros(len(groups.names), np.int64)
    for number, members in groups.strata():
        own = groups.images[:, number]
        target = fraction * int(own.sum())
        taken = int(own[part == 1].sum())
        for group, size in zip(members.tolist(), own[members].tolist(), strict=True):
            if 2 * taken + size <= 2 * target:
                part[group] = 1
                taken += size
    return part


def deal_folds(groups: Groups, k: int) -> Ints:
    """Return the fold of each group, 0 to k-1: the one that has the fewest images of its rarest class."""
    fold = np.full(len(groups.names), -1)
    sizes = groups.images.sum(axis=1)
    total = [0] * k
    for number, members in groups.strata():
        own = groups.images[:, number]
        held = [int(own[fold == home].sum()) for home in range(k)]
        # Large groups first: the small ones then level the folds. The sort keeps the order of chance.
        ordered = members[np.lexsort((-sizes[members], -own[members]))]
        for group, size, images in zip(ordered.tolist(), sizes[ordered].tolist(), own[ordered].tolist(), strict=True):
            home = min(range(k), key=lambda each: (held[each], total[each], each))
            fold[group] = home
            held[home] += images
            total[home] += size
    return fold


def cover(groups: Groups, part: Ints, homes: Sequence[int]) -> Ints:
    """Return the parts of the groups, few of them moved, so that every part holds every class.

    Args:
        groups: at least ``len(homes)`` of them hold each class.
        part: int64 (groups,), as they were dealt.
        homes: of each piece that shall hold every class the part it is in. A part that is named m times can be
            divided again into m pieces: ``(1, 0, 0)`` leaves part 0 fit for tuning rows.

    Raises:
        DataError: no division does that; the sentence names the classes that are in each other's way.
    """
    part = _filled(groups, part, max(homes) + 1)
    holds = groups.images > 0
    for number, pieces in Counter(homes).items():
        inside = holds[part == number]
        if not inside.any(axis=0).all() or (pieces > 1 and arrange(inside, pieces) is None):
            return _settled(groups, part, homes)
    return part


def divisible(groups: Groups, pieces: int) -> None:
    """Raise a DataError where the groups cannot be divided into pieces that each hold every class."""
    if arrange(groups.images > 0, pieces) is None:
        raise DataError(_conflict(groups, pieces))


def _filled(groups: Groups, part: Ints, parts: int) -> Ints:
    """Move single groups into parts that lack a class, as long as that leaves no gap elsewhere."""
    part = part.copy()
    holds = groups.images > 0
    sizes = groups.images.sum(axis=1)
    while True:
        held = np.array([holds[part == number].sum(axis=0) for number in range(parts)])
        for number, target in np.argwhere(held.T == 0):
            # A group can be spared where its part holds each of its classes in another group, too.
            spare = ((held[part] > 1) | ~holds).all(axis=1) & holds[:, number]
            free = np.flatnonzero(spare)
            if len(free):
                part[free[np.lexsort((sizes[free], groups.images[free, number]))[0]]] = target
                break
        else:
            return part


def arrange(holds: npt.NDArray[np.bool_], pieces: int) -> list[tuple[tuple[bool, ...], int]] | None:
    """Return which kinds of groups to lay into which pieces so that every piece holds every class.

    The search is complete: it branches on the class with the fewest groups to spare, and remembers what failed.

    Args:
        holds: bool (groups, classes): which classes a group holds.
        pieces: 1 or more.

    Returns:
        (which classes the group holds, piece), as many as are needed; ``None``: there is no such division.

    Raises:
        DataError: the search is too long.
    """
    kinds = sorted(Counter(map(tuple, holds.tolist())).items())
    masks = [sum(1 << place for place, inside in enumerate(kind) if inside) for kind, _ in kinds]
    failed: set[tuple[tuple[int, ...], tuple[int, ...]]] = set()

    def search(left: tuple[int, ...], missing: tuple[int, ...]) -> list[tuple[int, int]] | None:
        if not any(missing):
            return []
        state = (left, tuple(sorted(missing)))  # pieces are alike
        if state in failed:
            return None
        if len(failed) >= _MOST_STATES:
            raise DataError(
                f"Whether {pieces} parts can each hold every class was not found out: the groups hold too many "
                "combinations of classes; use fewer parts, or leave classes out."
            )
        spare = {}
        for number in range(holds.shape[1]):
            wanted = sum(lack >> number & 1 for lack in missing)
            if wanted:
                spare[number] = sum(n for n, mask in zip(left, masks, strict=True) if mask >> number & 1) - wanted
        tight = min(spare, key=spare.__getitem__)
        piece = max((p for p, lack in enumerate(missing) if lack >> tight & 1), key=lambda p: missing[p].bit_count())
        able = [kind for kind, mask in enumerate(masks) if left[kind] and mask >> tight & 1]
        able.sort(key=lambda kind: -(masks[kind] & missing[piece]).bit_count())
        for kind in able if spare[tight] >= 0 else ():
            fewer = tuple(n - (number == kind) for number, n in enumerate(left))
            rest = search(fewer, (*missing[:piece], missing[piece] & ~masks[kind], *missing[piece + 1 :]))
            if rest is not None:
                return [(kind, piece), *rest]
        failed.add(state)
        return None

    found = search(tuple(min(n, pieces) for _, n in kinds), ((1 << holds.shape[1]) - 1,) * pieces)
    return None if found is None else [(kinds[kind][0], piece) for kind, piece in found]


def _settled(groups: Groups, part: Ints, homes: Sequence[int]) -> Ints:
    """Return the division that the search finds, with every group that it does not need left where it is."""
    holds = groups.images > 0
    found = arrange(holds, len(homes))
    if found is None:
        raise DataError(_conflict(groups, len(homes)))
    part = part.copy()
    for kind, needs in _needs(found, homes).items():
        members = np.flatnonzero((holds == np.array(kind)).all(axis=1)).tolist()
        for home, count in needs.items():  # those that are at home already
            stay = [group for group in members if part[group] == home][:count]
            members = [group for group in members if group not in stay]
            needs[home] = count - len(stay)
        for home, count in needs.items():
            for group in members[:count]:
                part[group] = home
            members = members[count:]
    return part


def _needs(found: Sequence[tuple[tuple[bool, ...], int]], homes: Sequence[int]) -> dict[tuple[bool, ...], Counter[int]]:
    needs: dict[tuple[bool, ...], Counter[int]] = {}
    for kind, piece in found:
        needs.setdefault(kind, Counter())[homes[piece]] += 1
    return needs


def _conflict(groups: Groups, pieces: int) -> str:
    """Say which classes cannot all be in every piece: of those taken away one by one, the ones that are needed."""
    holds = groups.images > 0
    blamed = list(range(len(groups.classes)))
    for number in list(blamed):
        others = [other for other in blamed if other != number]
        if others and arrange(holds[:, others], pieces) is None:
            blamed = others
    names = [f"'{groups.classes[number]}'" for number in blamed]
    carriers = int(holds[:, blamed].any(axis=1).sum())
    return (
        f"Classes {', '.join(names[:-1])} and {names[-1]} lie in {carriers} {groups.word}s that cannot be divided "
        f"into {pieces} parts which each hold all of these classes; add images or leave a class out."
    )
