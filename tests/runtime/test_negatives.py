from nerlet.negatives import Row, choose_labels


def row(*types: str, **fields) -> Row:
    entities = tuple((0, 1, name) for name in types)
    sets = {key: frozenset(value) for key, value in fields.items() if isinstance(value, list)}
    return Row(("word",), entities, **(fields | sets))


def test_closed_rows_are_prompted_with_every_type_of_their_source():
    many = [f"type {number:02}" for number in range(40)]
    rows = [row(name, source="s", negatives="closed") for name in many]
    rows += [row("other", source="t", negatives="closed")]
    labels = choose_labels(rows)
    assert labels[:40] == [tuple(many)] * 40
    assert labels[40] == ("other",)


def test_closed_row_without_entities_is_prompted_too():
    rows = [row("a", source="s", negatives="closed"), row(source="s", negatives="closed")]
    assert choose_labels(rows) == [("a",), ("a",)]


def test_split_rows_get_types_of_their_half_only():
    halves = [row("a", "b"), row("b", "c"), row("x", "y"), row("a"), row()]
    rows = [row(*each.types, source="s", negatives="closed-split") for each in halves]
    assert choose_labels(rows) == [
        ("a", "b", "c"),
        ("a", "b", "c"),
        ("x", "y"),
        ("a", "b", "c"),
        (),
    ]


def test_slots_come_from_services_that_were_annotated():
    rows = [
        row("from", "to", negatives="per-service", services=["trains"]),
        row("room", negatives="per-service", services=["hotels"]),
        row("price", negatives="per-service", services=["hotels", "trains"]),
    ]
    trains, hotels, both = choose_labels(rows)
    assert trains == ("from", "to")
    assert hotels == ("room",)
    assert both == ("from", "price", "room", "to")


def test_open_rows_get_types_of_other_rows():
    rows = [row("a", source="s", negatives="open"), row("b", source="t", negatives="open")]
    assert choose_labels(rows) == [("a", "b"), ("a", "b")]


def test_open_partial_rows_get_no_type_of_their_source():
    rows = [
        row("a", source="s", negatives="open-partial"),
        row("b", source="s"),
        row("c", source="t"),
    ]
    assert choose_labels(rows)[0] == ("a", "c")


def test_closure_rows_get_no_type_that_is_implied():
    rows = [
        row("dog", source="s", negatives="closure", present=["dog", "animal"]),
        row("animal", "stone", source="s", negatives="closure", present=["animal", "stone"]),
    ]
    assert choose_labels(rows) == [("dog", "stone"), ("animal", "dog", "stone")]


def test_no_negative_is_guessed_where_none_is_allowed():
    rows = [row("a", negatives=kind) for kind in ("partial", "one-mention", None, "unheard of")]
    assert choose_labels([*rows, row("b")]) == [("a",)] * 4 + [("b",)]


def test_explicit_negatives_are_always_allowed():
    rows = [row("a", negatives="partial", explicit_negatives=["b", "a"])]
    assert choose_labels(rows) == [("a", "b")]


def test_draw_is_bounded_seeded_and_differs_between_rows():
    others = [row(f"type {number:02}", source="s") for number in range(60)]
    few = [row("a", negatives="open") for _ in range(3)]
    many = [row(*(f"own {number}" for number in range(20)), negatives="open")]
    rows = [*few, *many, *others]
    labels = choose_labels(rows)
    assert [len(each) for each in labels[:4]] == [6, 6, 6, 25]
    assert len(set(labels[:3])) == 3
    assert all("a" in each for each in labels[:3])
    assert choose_labels(rows) == labels
    assert choose_labels(rows, seed=1) != labels


def test_order_of_labels_tells_nothing():
    rows = [row("m", negatives="open"), row("a"), row("z")]
    assert choose_labels(rows)[0] == ("a", "m", "z")
