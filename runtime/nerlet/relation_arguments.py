"""What a user passes to a joint model beside the arguments of entities, checked, in one form."""

from collections.abc import Sequence
from dataclasses import dataclass

from nerlet.arguments import Task, check_threshold, spread
from nerlet.bundle import Bundle
from nerlet.errors import InputError

Relations = str | Sequence[str] | Sequence[Sequence[str]]
RelationThreshold = float | Sequence[float | None] | None


@dataclass(frozen=True, slots=True)
class RelationTask:
    """Which relations to find in one text.

    Attributes:
        names: Of the relations, as the model reads them.
        entities: Threshold of what the graph takes for entities.
        adjacency: Threshold of the pairs that it scores.
        threshold: Keep relations with scores above it.
    """

    names: tuple[str, ...]
    entities: float
    adjacency: float
    threshold: float


def no_relations(bundle: Bundle) -> InputError:
    """The error where relations are asked of a model without them."""
    return InputError(
        f"relations: {bundle.path} is a {bundle.architecture} model, which finds entities alone; "
        "load a joint model, whose gliner_config.json has a relations_layer, such as "
        "knowledgator/gliner-relex-large-v1.0, converted with nerlet-export convert"
    )


def read_relation_tasks(
    tasks: Sequence[Task], relations: object, adjacency: object, threshold: object
) -> list[RelationTask]:
    """Return which relations to find in each text.

    Args:
        tasks: What else to find in each.
        relations: One relation, a list, or a list with one list per text. Duplicates drop, the
            order stays; a list may be empty.
        adjacency: A number in [0, 1]; None: the text's threshold of entities, of several the least;
            or a list of these, one per text.
        threshold: The same.

    Raises:
        InputError: A value out of bounds, or a list of another length than `tasks`.
    """
    columns = zip(
        tasks,
        _read_relations(relations, len(tasks)),
        spread("adjacency_threshold", adjacency, len(tasks)),
        spread("relation_threshold", threshold, len(tasks)),
        strict=True,
    )
    return [
        RelationTask(
            names=names,
            entities=min(task.thresholds),
            adjacency=_read_threshold("adjacency_threshold", own_adjacency, task),
            threshold=_read_threshold("relation_threshold", own_threshold, task),
        )
        for task, names, own_adjacency, own_threshold in columns
    ]


def _read_threshold(name: str, value: object, task: Task) -> float:
    return min(task.thresholds) if value is None else check_threshold(name, value)


def _read_relations(relations: object, count: int) -> list[tuple[str, ...]]:
    """Return the relations of each text."""
    if isinstance(relations, list | tuple) and any(
        isinstance(item, list | tuple) for item in relations
    ):
        sets = spread("relations", relations, count)
        return [_read_names(item, f"relations[{index}]") for index, item in enumerate(sets)]
    return [_read_names(relations, "relations")] * count


def _read_names(relations: object, where: str) -> tuple[str, ...]:
    names = [relations] if isinstance(relations, str) else relations
    if not isinstance(names, list | tuple) or not all(
        isinstance(name, str) and name.strip() for name in names
    ):
        raise InputError(
            f"{where}: expected a list of strings that are not empty, found {relations!r}; give "
            "for example ['works for', 'located in']"
        )
    return tuple(dict.fromkeys(names))
