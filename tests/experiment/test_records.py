import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpap.experiment.records import AS_SPARSE, choose

Epochs = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 8)), min_size=1, max_size=12)


def records(epochs: list[tuple[float, float]]) -> list[dict[str, float]]:
    sparsity, made = 0.0, []
    for epoch, (accuracy, more) in enumerate(epochs, start=1):
        sparsity += more / 400
        made.append(
            {
                "epoch": epoch,
                "test_accuracy": accuracy / 20,
                "validation_accuracy": 1 - accuracy / 20,
                "sparsity": sparsity,
                "timestep_sparsity": 0.0,
            }
        )
    return made


@given(Epochs)
def test_last_keeps_the_last(epochs: list[tuple[float, float]]) -> None:
    assert choose(records(epochs), "last")["epoch"] == len(epochs)


@given(Epochs, st.sampled_from(["paper", "validation"]))
def test_the_kept_network_is_as_sparse_as_the_last_and_never_worse_than_it(
    epochs: list[tuple[float, float]], protocol: str
) -> None:
    made = records(epochs)
    kept = choose(made, protocol)
    score = "test_accuracy" if protocol == "paper" else "validation_accuracy"
    assert kept["sparsity"] >= made[-1]["sparsity"] - AS_SPARSE
    assert kept[score] >= made[-1][score] or made[-1]["sparsity"] == pytest.approx(
        kept["sparsity"], abs=AS_SPARSE
    )


@given(Epochs)
def test_of_a_dense_run_the_first_best_epoch_is_kept(epochs: list[tuple[float, float]]) -> None:
    made = records([(accuracy, 0) for accuracy, _ in epochs])
    best = max(record["test_accuracy"] for record in made)
    assert choose(made, "paper") == next(record for record in made if record["test_accuracy"] == best)
