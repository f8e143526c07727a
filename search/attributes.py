"""Zero-shot attributes: which of the values that a shop names, such as striped or plain, a product's photos show.

The vocabulary is JSON or YAML: values for each product type and attribute. The type "*" stands for every type that does
not have the attribute itself. A value can have a phrase that describes it better than "a VALUE TYPE".

    {"mug": {"handle": ["round", "square"]},
     "*": {"pattern": {"striped": "a striped {type}", "plain": "a {type} of one colour"}}}

Each value's phrase is compared with the stored embeddings of a product's photos; no photo is embedded again. The guess
is stored in the payload: ``guessed.NAME`` is the value, to filter by, and ``confidence.NAME`` is its probability. A
product whose confidence is too low has no guess.

A cosine is no probability. The scale between the two is fitted on the products of the index whose value is known from
their own attribute of the same name (temperature scaling, Guo et al., 2017, arXiv 1706.04599). Without enough of
those, CLIP's usual scale is taken, and the confidence is not calibrated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from search.index import IMAGE, Index, Vector, WrongVersion
from vlclip import Client, comparable

SCALE = 100.0
"""CLIP's scale of cosines before the softmax, where no other was fitted."""
LABELLED = 30
"""Products with a known value that it takes to fit a scale."""
LEAST = 0.5
"""A guess with less confidence is not stored."""
EVERY = "*"
_BATCH = 200  # products whose guesses are stored together


@dataclass(frozen=True)
class Attribute:
    """The values of an attribute of a product type, and how cosines become confidences.

    ``phrases`` describe the values, with ``{type}`` for the product type. ``least``: the lowest confidence of a guess.
    ``labelled``: the products that ``scale`` was fitted on; 0 if it was not fitted.
    """

    product_type: str
    name: str
    values: tuple[str, ...]
    phrases: tuple[str, ...]
    least: float = LEAST
    scale: float = SCALE
    labelled: int = 0


@dataclass(frozen=True)
class Outcome:
    """How well an attribute was guessed.

    ``products``: those of the type; ``guessed``: those with enough confidence; ``labelled``: those with a known value.
    ``accuracy`` is the share of the labelled ones whose most likely value is the known one, ``by_value`` the same for
    each value, and ``guessed_accuracy`` for those with enough confidence. ``calibration_error`` is the mean difference
    of confidence and accuracy in ten bins of confidence; each half of the labelled products is judged with the scale of
    the other half. They are None where no value is known.
    """

    attribute: Attribute
    products: int
    guessed: int
    labelled: int
    accuracy: float | None = None
    guessed_accuracy: float | None = None
    calibration_error: float | None = None
    by_value: Mapping[str, float] = field(default_factory=dict)


def vocabulary_of(given: Any, least: float = LEAST) -> list[Attribute]:
    """The attributes of a vocabulary. An attribute without values is one to forget. Raises ValueError."""
    if not 0 <= least <= 1:
        raise ValueError(f"the confidence must be between 0 and 1, not {least:g}")
    if not isinstance(given, Mapping) or not all(isinstance(one, Mapping) for one in given.values()):
        raise ValueError(
            'expected values by product type and attribute, such as {"mug": {"handle": ["round", "square"]}}'
        )
    return [
        _attribute(str(kind), str(name), values, least) for kind, one in given.items() for name, values in one.items()
    ]


def _attribute(kind: str, name: str, values: Any, least: float) -> Attribute:
    where = f"{kind}: {name}"
    if isinstance(values, list | tuple) and all(isinstance(one, str) for one in values):
        values = {value: f"{'an' if value[:1].lower() in tuple('aeiou') else 'a'} {value} {{type}}" for value in values}
    if not isinstance(values, Mapping) or not all(isinstance(one, str) for pair in values.items() for one in pair):
        raise ValueError(f"{where}: expected a list of values, or an object with a phrase for each value")
    if len(values) == 1:
        raise ValueError(f"{where}: expected at least two values to choose from, got one")
    if not name or '"' in name or "\\" in name:
        raise ValueError(f"{where}: expected a name without quotation marks and backslashes")
    return Attribute(kind, name, tuple(values), tuple(values.values()), least)


def merged(before: Iterable[Attribute], new: Iterable[Attribute]) -> tuple[Attribute, ...]:
    """The attributes, with new ones in place of those of the same type and name, and without those without values."""
    found = {(one.product_type, one.name): one for one in (*before, *new)}
    return tuple(one for one in found.values() if one.values)


class Guesser:
    """Guesses the attributes of products from the embeddings of their photos. ``version`` is that of the photos."""

    def __init__(self, client: Client, attributes: Sequence[Attribute], version: str) -> None:
        self._client, self._version, self.attributes = client, version, attributes
        self._phrases: dict[tuple[str, str], Vector] = {}

    def of(self, product_type: str) -> dict[str, Attribute]:
        """The attributes of a product type, by name."""
        chosen = {one.name: one for one in self.attributes if one.product_type == EVERY}
        return chosen | {one.name: one for one in self.attributes if one.product_type == product_type}

    def cosines(self, product_type: str, photos: Vector) -> dict[str, Vector]:
        """The cosines of photos, FP32 [N, D], to the phrases of each attribute: FP32 [N, values]."""
        return {name: photos @ self._embedded(product_type, one).T for name, one in self.of(product_type).items()}

    def payload(self, product_type: str, cosines: Mapping[str, Vector]) -> dict[str, Any]:
        """What is stored of a product, by the mean cosines of its photos: FP32 [values] for each attribute."""
        guessed, confidence = {}, {}
        for name, one in self.of(product_type).items():
            chances = softmax(cosines[name] * one.scale)
            best = int(chances.argmax())
            if chances[best] >= one.least:
                guessed[name], confidence[name] = one.values[best], round(float(chances[best]), 4)
        return {"guessed": guessed, "confidence": confidence}

    def guess(self, product_type: str, photos: Vector) -> dict[str, Any]:
        """What is stored of a product, by the embeddings of its photos, FP32 [N, D]."""
        means = {name: found.mean(0) for name, found in self.cosines(product_type, photos).items()}
        return self.payload(product_type, means)

    def _embedded(self, product_type: str, one: Attribute) -> Vector:
        key = product_type, one.name
        if key not in self._phrases:
            kind = product_type or "product"
            found = self._client.embed_texts([phrase.replace("{type}", kind) for phrase in one.phrases])
            if not comparable(self._version, found.version):
                raise WrongVersion(
                    f"the server encodes with {found.version[0]}, but the photos were embedded by {self._version}; "
                    "run reindex, or serve the models that made the index"
                )
            self._phrases[key] = found.embedding
        return self._phrases[key]


@dataclass
class _Seen:
    """A product of the index: its points, its own attributes, and the sum of its photos' cosines."""

    product_type: str
    attributes: Mapping[str, Any]
    points: list[str] = field(default_factory=list)
    sums: dict[str, Vector] = field(default_factory=dict)

    def cosines(self, name: str) -> Vector:
        return np.asarray(self.sums[name] / len(self.points), np.float32)


def apply(index: Index, client: Client, attributes: Sequence[Attribute], version: str) -> tuple[Guesser, list[Outcome]]:
    """Fit the scales, guess the attributes of all products, and store the guesses. No photo is embedded."""
    unfitted = Guesser(client, attributes, version)
    seen = _read(index, unfitted)
    outcomes = [_fit(one, seen, unfitted) for one in attributes]
    guesser = Guesser(client, [outcome.attribute for outcome in outcomes], version)
    changes: list[tuple[Sequence[str], Mapping[str, Any]]] = []
    for one in seen.values():
        found = guesser.payload(one.product_type, {name: one.cosines(name) for name in one.sums})
        changes.append((one.points, found))
        if len(changes) == _BATCH:
            index.amend(changes)
            changes = []
    index.amend(changes)
    return guesser, outcomes


def _read(index: Index, guesser: Guesser) -> dict[str, _Seen]:
    seen: dict[str, _Seen] = {}
    for point in index.points({}, vectors=(IMAGE,)):
        kind = point.payload["product_type"]
        one = seen.setdefault(point.payload["product"], _Seen(kind, point.payload["attributes"]))
        one.points.append(point.id)
        for name, found in guesser.cosines(kind, point.vectors[IMAGE][None]).items():
            one.sums[name] = one.sums.get(name, 0) + found[0]
    return seen


def _fit(attribute: Attribute, seen: Mapping[str, _Seen], guesser: Guesser) -> Outcome:
    """The attribute with the scale of its labelled products, and how well it is guessed."""
    name = attribute.name
    products = {key: one for key, one in seen.items() if guesser.of(one.product_type).get(name) is attribute}
    cosines = {key: one.cosines(name) for key, one in products.items()}
    truth = {key: n for key, one in products.items() if (n := _known(one.attributes.get(name), attribute.values)) >= 0}
    fitted = attribute
    if len(truth) >= LABELLED:
        given = np.stack([cosines[key] for key in truth]), np.array(list(truth.values()))
        fitted = replace(attribute, scale=fit_scale(*given), labelled=len(truth))
    sure = sum(softmax(one * fitted.scale).max() >= fitted.least for one in cosines.values())
    if not truth:
        return Outcome(fitted, len(products), int(sure), 0)
    chances = np.stack([softmax(cosines[key] * fitted.scale) for key in truth])
    known = np.array(list(truth.values()))
    right = chances.argmax(1) == known
    certain = chances.max(1) >= fitted.least
    by_value = {
        value: float(right[known == n].mean()) for n, value in enumerate(attribute.values) if (known == n).any()
    }
    return Outcome(
        fitted, len(products), int(sure), len(truth), float(right.mean()),
        float(right[certain].mean()) if certain.any() else None,
        _cross_error(list(truth), np.stack([cosines[key] for key in truth]), known, fitted), by_value,
    )  # fmt: skip


def _cross_error(products: Sequence[str], cosines: Vector, truth: Any, fitted: Attribute) -> float:
    """The calibration error of each half of the products with the scale of the other half."""
    half = np.array([hashlib.sha256(one.encode()).digest()[0] % 2 == 0 for one in products])
    chances = np.zeros_like(cosines)
    for mine in (half, ~half):
        enough = fitted.labelled and (~mine).any()
        scale = fit_scale(cosines[~mine], truth[~mine]) if enough else fitted.scale
        chances[mine] = softmax(cosines[mine] * scale)
    return calibration_error(chances.max(1), chances.argmax(1) == truth)


def _known(given: Any, values: Sequence[str]) -> int:
    """Which of the values a product's own attribute has, or -1 for none or several."""
    listed = [str(one).casefold() for one in (given if isinstance(given, list | tuple) else [given])]
    found = [n for n, value in enumerate(values) if value.casefold() in listed]
    return found[0] if len(found) == 1 else -1


def fit_scale(cosines: Vector, truth: Any) -> float:
    """The scale with the lowest log loss.

    ``cosines``: FP32 [N, values]; ``truth``: INT [N], the index of the true value.
    """
    scales = np.geomspace(1, 1000, 200)
    losses = [-np.log(softmax(cosines * scale)[np.arange(len(truth)), truth] + 1e-12).mean() for scale in scales]
    return float(scales[int(np.argmin(losses))])


def calibration_error(confidence: Any, right: Any, bins: int = 10) -> float:
    """The expected calibration error: |mean confidence - accuracy| of each bin of confidence, weighted by its size.

    ``confidence``: FP [N], 0 to 1; ``right``: BOOL [N].
    """
    place = np.minimum((np.asarray(confidence) * bins).astype(int), bins - 1)
    return float(
        sum(abs(np.mean(confidence[place == n]) - np.mean(right[place == n])) * (place == n).mean() for n in set(place))
    )


def softmax(logits: Vector) -> Vector:
    """The probabilities of the last axis."""
    raised: Vector = np.exp(logits - logits.max(-1, keepdims=True))
    raised /= raised.sum(-1, keepdims=True)
    return raised
