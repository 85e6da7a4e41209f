from dpap.experiment.demo import demo_table
from support.comparison import made


def test_twins_stand_side_by_side() -> None:
    table = demo_table(made("dense", 0, 0.9944), made("dpap", 0, 0.9917, 0.6, macs=2500))
    lines = {
        line.split("|")[0].strip(): [cell.strip() for cell in line.split("|")[1:]]
        for line in table.splitlines()
    }
    # accuracies differ in points: a ratio of 99.7% would be rounded to "100%"
    assert lines["test accuracy"] == ["99.44%", "99.17%", "−0.27 points"]
    assert lines["MACs per image"] == ["5,000", "2,500", "50%"]
