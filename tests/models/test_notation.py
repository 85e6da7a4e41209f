import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpap.models.notation import (
    PRESETS,
    BatchNorm,
    Conv,
    Dropout,
    FullyConnected,
    Pool,
    parse,
    scaled,
)

number = st.integers(1, 600)
layers = st.one_of(
    st.builds(Conv, number, st.integers(1, 9), st.integers(0, 4)).filter(
        lambda conv: conv.kernel % 2 == 1 or 2 * conv.padding != conv.kernel - 1
    )
)
pools = st.builds(Pool, st.sampled_from(["Avg", "Max"]), st.integers(1, 4))
dropouts = st.builds(Dropout, st.sampled_from([0.0, 0.1, 0.25, 0.5]))
fully = st.builds(FullyConnected, number)


def normalised(layer):
    return st.one_of(layer.map(lambda p: (p,)), layer.map(lambda p: (p, BatchNorm())))


def many(strategy):
    return st.lists(strategy, max_size=5).map(
        lambda groups: tuple(layer for group in groups for layer in group)
    )


single = st.one_of(pools, dropouts).map(lambda layer: (layer,))
networks = st.tuples(many(st.one_of(normalised(layers), single)), many(normalised(fully)), fully).map(
    lambda parts: (*parts[0], *parts[1], parts[2])
)


@given(networks)
def test_what_is_written_is_read_back(layers):
    assert parse("-".join(map(str, layers))) == layers


def test_reads_table_one():
    assert parse("15C3-AvgPool2-40C3-AvgPool2-300FC-10FC") == (
        Conv(15, 3, 1),
        Pool("Avg", 2),
        Conv(40, 3, 1),
        Pool("Avg", 2),
        FullyConnected(300),
        FullyConnected(10),
    )
    assert parse("20C5P0-BN-MaxPool2-Dropout.5-10FC") == (
        Conv(20, 5, 0),
        BatchNorm(),
        Pool("Max", 2),
        Dropout(0.5),
        FullyConnected(10),
    )


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_preset_is_found_by_name(name):
    assert parse(name) == parse(PRESETS[name])


@pytest.mark.parametrize(
    "layers, message",
    [
        ("15C3-Avgpool2-10FC", "token 2 of '15C3-Avgpool2-10FC', 'Avgpool2', is unknown; expected nCk"),
        ("15C3--10FC", "token 2 of .* '', is unknown"),
        ("0C3-10FC", "token 1 .* '0C3', is unknown"),
        ("15C3-Dropout1.5-10FC", "token 2 .* 'Dropout1.5', is unknown"),
        ("snn_3fc", "presets snn_2fc, snn_2conv2fc"),
        ("15C4-10FC", "token 1 .* is incomplete: an even kernel .* 15C4P0"),
        ("BN-10FC", "token 1 .* 'BN', normalises nothing"),
        ("15C3-AvgPool2-BN-10FC", "token 3 .* 'BN', normalises nothing"),
        ("300FC-15C3-10FC", "token 2 .* '15C3', needs a map"),
        ("300FC-MaxPool2-10FC", "token 2 .* 'MaxPool2', needs a map"),
        ("15C3-AvgPool2", "token 2 .* ends the network; expected the output layer"),
        ("15C3-10FC-BN", "token 3 .* ends the network"),
    ],
)
def test_errors_name_the_token_and_its_place(layers, message):
    with pytest.raises(ValueError, match=message):
        parse(layers)


@given(networks, st.floats(0.01, 3))
def test_width_scales_hidden_layers_only(layers, width):
    narrow = scaled(layers, width)
    assert narrow[-1] == layers[-1] and len(narrow) == len(layers)
    for before, after in zip(layers[:-1], narrow[:-1], strict=True):
        match before, after:
            case Conv(old), Conv(new):
                assert new >= 1 and abs(new - old * width) <= 1
            case FullyConnected(old), FullyConnected(new):
                assert new >= 1 and abs(new - old * width) <= 1
            case _:
                assert before == after
