"""`dpap inspect`."""

from jsonargparse import ArgumentParser, Namespace

from dpap.anatomy import find_wiring
from dpap.cli.shared import add_imports_flag, check_imports
from dpap.data import load_data
from dpap.experiment.config import add_experiment_flags, config_from
from dpap.experiment.costs import costs, latency_records
from dpap.experiment.errors import blame
from dpap.experiment.formatting import PICO, quantity
from dpap.experiment.learner import build_model, example_of
from dpap.experiment.machine import choose_device
from dpap.experiment.tables import text_table


def add_arguments(parser: ArgumentParser) -> None:
    """Give `parser` the subcommand's flags."""
    add_experiment_flags(parser)
    add_imports_flag(parser)


def run(parser: ArgumentParser, given: Namespace, command: str) -> None:
    """Print the wiring and the costs of the untrained network."""
    config = config_from(parser, given)
    check_imports(config, given, command)
    device = choose_device(config.training.device)
    with blame("the data"):
        data = load_data(config.data)
    model = build_model(config, data, device)
    print(find_wiring(model, (example_of(data, device),)))
    cost = costs(model, data, device, config.network.spiking)
    (seconds,) = latency_records([model], data, device)
    print()
    print(
        text_table(
            ["layer", "units", "features", "weights"],
            [
                [each["name"], *(f"{each[part]:,}" for part in ("units", "features", "weights"))]
                for each in cost["layers"]
            ],
        )
    )
    print(f"\n{cost['parameters']:,} parameters, {cost['weights']:,} weights")
    print(
        f"a sample takes {cost['macs']:,} MACs, {cost['synaptic_operations']:,.0f} synaptic operations untrained, "
        f"{quantity(cost['energy'], 'J')} by (14), {quantity(seconds['latency_seconds'], 's')} on {device}"
    )
    print(
        f"done by adding one spike at a time, they take {quantity(cost['picojoules'] * PICO, 'J')}: "
        f"{cost['accumulates']:,.0f} additions, {cost['multiplies']:,.0f} multiplications with addition"
    )
