"""`dpap train`."""

import shlex
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from dpap.cli.shared import add_imports_flag, add_quiet_flag, check_imports, continued_by, typed_flags
from dpap.experiment.config import add_experiment_flags, config_from
from dpap.experiment.errors import UserError, blame
from dpap.experiment.processes import TIMEOUT
from dpap.experiment.progress import progress_for
from dpap.experiment.run_folder import RunFolder
from dpap.experiment.train import resume, train

WITH_RESUME = ("--resume", "--quiet", "--allow-imports", "--timeout")
"""Flags that leave a run's configuration as it is."""


def add_arguments(parser: ArgumentParser) -> None:
    """Give `parser` the subcommand's flags."""
    add_experiment_flags(parser)
    parser.add_argument("--resume", metavar="RUN", help="go on with this run folder; takes no other setting")
    parser.add_argument("--overwrite", action="store_true", help="replace the run in the folder")
    parser.add_argument(
        "--timeout",
        type=float,
        default=TIMEOUT,
        help="started by torchrun: seconds that the processes wait for each other",
    )
    add_imports_flag(parser)
    add_quiet_flag(parser)


def run(parser: ArgumentParser, given: Namespace, command: str) -> None:
    """Train, or go on, and print the result."""
    progress = progress_for(given.quiet)
    if given.resume is not None:
        other = [flag for flag in typed_flags(parser, command) if flag not in WITH_RESUME]
        if other:
            raise UserError(
                f"--resume takes the run's own configuration, and no other setting but "
                f"{', '.join(WITH_RESUME[1:])}; got {', '.join(other)}: leave that out"
            )
        path = Path(given.resume)
        with continued_by(RunFolder(path).resume_command):
            summary = resume(
                path, progress=progress, allow_imports=given.allow_imports, timeout=given.timeout
            )
    else:
        config = config_from(parser, given)
        check_imports(config, given, command)
        path = config.folder
        with continued_by(RunFolder(path).resume_command):
            summary = train(
                config,
                overwrite=given.overwrite,
                progress=progress,
                command=command,
                timeout=given.timeout,
            )
    if not summary:
        return  # the first of several processes prints
    with blame(str(RunFolder(path).summary)):
        before, after = summary["before"], summary["after"]
        text = (
            f"test accuracy {summary['final_test_accuracy']:.2%} (epoch {summary['final_epoch']}, protocol "
            f"{summary['protocol']}), {summary['sparsity']:.1%} of the weights"
            + (f" and {steps:.1%} of the neuron-timesteps" if (steps := summary["timestep_sparsity"]) else "")
            + f" pruned, {before['parameters']:,} -> {after['parameters']:,} parameters"
        )
    print(text)
    print(f"run: {path}   figures: {shlex.join(['dpap', 'report', str(path)])}")
