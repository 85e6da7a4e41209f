from dpap.surgery.culprits import find_culprits


def _search(bad: set[int], count: int) -> tuple[list[str], int]:
    """The culprits found among sets of one layer each, and how many removals that took."""
    tried = 0

    def problem(names: list[str]) -> str | None:
        nonlocal tried
        tried += 1
        return next((f"because of {name}" for name in names if int(name) in bad), None)

    found = find_culprits([[str(number)] for number in range(count)], problem)
    assert all(why == f"because of {names[0]}" for names, why in found)
    return [names[0] for names, _ in found], tried


def test_every_culprit_is_found_and_nothing_else() -> None:
    for bad in (set(), {0}, {39}, {3, 4, 30}, set(range(0, 40, 2)), set(range(40))):
        assert sorted(_search(bad, 40)[0], key=int) == [str(number) for number in sorted(bad)]


def test_one_culprit_is_found_by_halving_and_many_from_one_another() -> None:
    assert _search({29}, 64)[1] <= 1 + 6 + 1
    # each alone by halving would take 6 more
    assert _search(set(range(0, 64, 2)), 64)[1] <= 32 * 4 + 1
