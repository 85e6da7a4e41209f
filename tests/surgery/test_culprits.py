from collections.abc import Callable

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


def test_where_it_showed_is_tried_first_and_misleads_nobody() -> None:
    bad, sets, tried = {3, 17, 30}, [[str(number)] for number in range(40)], 0

    def search(near: Callable[[int], list[str]]) -> tuple[set[str], int]:
        nonlocal tried
        tried, last = 0, [0]

        def problem(names: list[str]) -> str | None:
            nonlocal tried
            tried += 1
            wrong = [int(name) for name in names if int(name) in bad]
            last[0] = wrong[0] if wrong else last[0]
            return f"because of {wrong[0]}" if wrong else None

        found = find_culprits(sets, problem, lambda: near(last[0]))
        return {name for names, _ in found for name in names}, tried

    assert search(lambda last: [str(last), "39"]) == ({"3", "17", "30"}, 3 * 2 + 1)
    found, told_wrong = search(lambda last: ["38", "39", str(last)])
    assert found == {"3", "17", "30"}
    assert told_wrong > 3 * 2 + 1
    assert search(lambda last: ["not in any set"])[0] == {"3", "17", "30"}
