import statistics

from dpap.experiment.comparing.comparison_table import HEAD, comparison
from support.comparison import made


def test_a_table_a_recipe_with_spreads_and_verdicts() -> None:
    results = [
        made("dense", 0, 0.90),
        made("dense", 1, 0.70),
        made("dpap", 0, 0.91, 0.5, picojoules=1.5e3),
        made("dpap", 1, 0.73, 0.5, picojoules=2.5e3),
        made("dpap", 0, 0.5, 0.9, achieved=0.3, recipe="other"),
    ]
    text = comparison(results, ["other: dense failed: no data"])
    assert text.count("| method") == 2
    line = next(line for line in text.splitlines() if line.startswith("| dpap"))
    cells = dict(zip(HEAD, [cell.strip() for cell in line.strip("|").split("|")], strict=True))
    assert cells["accuracy %"] == f"82.00 ± {statistics.stdev([91, 73]):.2f}"
    assert cells["to dense"] == f"+2.00 ± {statistics.stdev([1, 3]):.2f}"
    assert cells["verdict"] == "tie"
    assert cells["counted"] == "2 nJ"
    assert cells["training"] == "100%"
    assert "†" in text.split("## other")[1].split("|\n\n")[0]
    assert "protocol validation" in text.lower()
    assert "- other: dense failed: no data" in text


def test_nothing_finished() -> None:
    assert "No run is finished" in comparison([])
