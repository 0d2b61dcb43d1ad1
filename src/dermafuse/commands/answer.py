"""One prediction for a person: classes with their probabilities, what cannot be excluded, flags, which model."""

from __future__ import annotations

from dermafuse.printable import plain
from dermafuse.runtime.bundle.folder import Bundle
from dermafuse.runtime.prediction import Prediction
from dermafuse.runtime.released import model_facts, which_model

#: Characters of a bar that stands for a probability of 1.
_BAR = 30


def answer_text(image: str, said: Prediction, bundle: Bundle) -> str:
    """Return the lines that a terminal shows of one prediction."""
    width = max(len(plain(code)) for code in bundle.classes)
    names = max(len(plain(name)) for name in bundle.names.values())
    lines = [
        f"{plain(image)}: {plain(said.name)} ({plain(said.label)}), probability {said.probabilities[said.label]:.1%}"
    ]
    for code, chance in said.ranked:
        bar = "#" * round(chance * _BAR)
        lines.append(f"  {plain(code):<{width}}  {plain(bundle.names[code]):<{names}}  {chance:6.1%}  {bar}".rstrip())
    if said.malignant_probability is not None:
        lines.append(f"  Malignant, all together: {said.malignant_probability:.1%}")
    sets = said.prediction_set
    if sets is not None and sets != (said.label,):
        lines.append(f"  Cannot be excluded: {', '.join(map(plain, sets)) if sets else 'none of the classes fits'}")
    if said.out_of_distribution:
        lines.append("  UNLIKE the images this model was trained on: do not trust this answer.")
    silent = [name for name in said.missing if name not in said.unknown]
    if silent:
        lines.append(f"  Not known, which makes the answer less sure: {', '.join(map(plain, silent))}")
    lines.append(f"  {which_model(model_facts(bundle))}")
    return "\n".join(lines) + "\n"
