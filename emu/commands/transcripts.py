"""The options of `pvhboot boot` about transcripts: --record-io, --replay-io, --replay-order."""

import argparse
from typing import TYPE_CHECKING

from pvhboot.loader.kernel import Kernel
from pvhboot.loader.plan import BootPlan
from pvhboot.shim.errors import BootError

from ..engines.base import Engine, Until
from ..engines.names import QEMU
from ..reasons import HANDOFF
from ..session import Outcome
from .common import plan_from, plan_on, until_from

if TYPE_CHECKING:  # what not each boot has to wait for
    from pvhboot.loader.recording import Recording

    from ..replay import Replay
    from ..transcriber import Transcriber
    from ..transcript import Transcript


def replay_from(arguments: argparse.Namespace) -> "Replay | None":
    """--replay-io; BootError if it does not fit the other options."""
    path: str | None = arguments.replay_io
    if path is None:
        if arguments.replay_order is not None:
            raise BootError("--replay-order is for --replay-io: give the transcript")
        return None
    if arguments.engine == QEMU:
        raise BootError("--replay-io is for the engines unicorn and kvm: QEMU's devices are its own")
    if arguments.recording is not None:
        raise BootError("--replay-io and --recording: in a replay there is no fw_cfg that could hold the recording")
    if arguments.no_dma:
        raise BootError("--replay-io and --no-dma: whether there is a DMA interface, the transcript says")
    if arguments.until not in (None, HANDOFF):
        raise BootError(f"--until {arguments.until}: a transcript ends at the handoff, and so does its replay")
    from ..replay import STRICT, Replay
    from ..transcript import read_transcript

    transcript = read_transcript(path)
    if transcript.subject.machine != arguments.machine:
        machine = transcript.subject.machine
        raise BootError(f"{path}: a transcript of {machine}: give --machine {machine}")
    return Replay(transcript, arguments.replay_order or STRICT)


def plan_of(
    arguments: argparse.Namespace,
    kernel: Kernel,
    firmware: bytes,
    engine: Engine,
    recording: "Recording | None",
    replay: "Replay | None",
) -> BootPlan:
    """The plan; a replay's has the memory, the command line and what the host reserves of its transcript. (Others, if given,
    are planned with, so that it can be said what is not the same.)"""
    if replay is None:
        return plan_on(arguments, kernel, firmware, engine, recording)
    subject = replay.transcript.subject
    return plan_from(
        arguments,
        kernel,
        firmware,
        host_reserved=lambda _spec, _memory: subject.host_reserved,
        memory=subject.memory,
        cmdline=subject.cmdline,
    )


def until_of(arguments: argparse.Namespace, replay: "Replay | None") -> Until:
    """--until; a replay's is the handoff."""
    return until_from(arguments) if replay is None else Until(HANDOFF)


def transcriber_from(arguments: argparse.Namespace) -> "Transcriber | None":
    """What listens for --record-io; None without it, or if QEMU is to trace."""
    if arguments.record_io is None or arguments.engine == QEMU:
        return None
    from ..transcriber import Transcriber

    return Transcriber()


def transcript_of(engine: Engine, transcriber: "Transcriber | None", outcome: Outcome) -> "Transcript":
    """What --record-io is to hold. BootError if there is none."""
    if transcriber is not None:
        return transcriber.transcript(outcome)
    from ..engines.qemu.engine import QemuEngine
    from ..transcriber import transcribe_qemu

    assert isinstance(engine, QemuEngine)
    return transcribe_qemu(outcome, engine.trace)
