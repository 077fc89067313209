"""The command line. Bad input gives one line on stderr and a non-zero exit status."""

import contextlib
import errno
import logging
import os
import signal
import sys

import click

from inkfill import defaults
from inkfill.app.commands.about import completion, info, masks, methods
from inkfill.app.commands.evaluate import evaluate
from inkfill.app.commands.inpaint import inpaint, sample
from inkfill.app.commands.show import demo, export, page
from inkfill.app.commands.train import train
from inkfill.errors import InputError, encodable, shown


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True},
)
@click.version_option(defaults.VERSION, prog_name="inkfill")
@click.pass_context
def cli(context: click.Context) -> None:
    """Fill holes in small images with denoising diffusion.

    \b
    inkfill demo                                              see it work
    inkfill inpaint digit.png --mask hole.png --out filled.png
    inkfill inpaint digits.npy --mask half:left --samples 8 --out filled.npy
    inkfill train --data my-images/ --minutes 10 --out runs/mine

    In a mask, True or white means missing: to be filled.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for command in (demo, train, inpaint, sample, evaluate, masks, page, export, info, completion, methods):
    cli.add_command(command)


def _leave(number: int, frame: object) -> None:
    """Exit on a signal as on Ctrl-C: unfinished files are removed."""
    sys.exit(128 + number)


def main() -> None:
    """Run the command line. Exit status: 0, 1 for bad input, 2 for wrong usage, 130 after Ctrl-C."""
    notes = logging.StreamHandler(sys.stderr)
    notes.setFormatter(logging.Formatter("inkfill: %(message)s"))
    logging.getLogger("inkfill").addHandler(notes)
    ends = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    caught = [number for number in ends if signal.getsignal(number) == signal.SIG_DFL]
    for number in caught:
        signal.signal(number, _leave)
    try:
        os.getcwd()
        cli.main(prog_name="inkfill", standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except click.ClickException as error:
        _fail(f"{error.format_message()} (see inkfill --help)", 2)
    except InputError as error:
        _fail(str(error), 1)
    except (MemoryError, RuntimeError) as error:  # torch raises the latter where numpy and Python raise the former
        allocator = ("can't allocate memory", "not enough memory")  # Linux and macOS; Windows
        if not type(error).__name__.endswith("MemoryError") and not any(text in str(error) for text in allocator):
            raise
        _fail("not enough memory: use fewer or smaller images", 1)
    except OSError as error:
        reason = "no space left on the disk" if error.errno == errno.ENOSPC else error.strerror or str(error)
        _fail(f"{error.filename or 'output'}: {reason}", 1)
    finally:
        logging.getLogger("inkfill").removeHandler(notes)
        for number in caught:
            signal.signal(number, signal.SIG_DFL)


def _fail(message: str, status: int) -> None:
    with contextlib.suppress(OSError, ValueError):  # a closed standard error must not hide the exit status
        click.echo(encodable(f"inkfill: {shown(' '.join(message.split()))}", sys.stderr), err=True)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:  # torch's own exit would wait for a process that hangs
        os._exit(status)
    sys.exit(status)
