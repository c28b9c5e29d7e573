"""The outcome of a boot as plain data, for `--json`. Numbers stay numbers; addresses are physical."""

from typing import TYPE_CHECKING, Any

from ..session import Outcome

if TYPE_CHECKING:
    from ..diagnosis import Diagnosis


def outcome_to_json(outcome: Outcome, diagnosis: "Diagnosis | None" = None) -> dict[str, Any]:
    """Engine, machine, kernel, stop, handoff, start_info, memmap, modules, cmdline, findings, causes, blob and counts."""
    stop, handoff, tables = outcome.run.stop, outcome.handoff, outcome.tables
    place = outcome.stop_place
    return {
        "ok": outcome.ok,
        "engine": outcome.engine,
        "machine": outcome.plan.spec.name,
        "memory": outcome.plan.ram_size,
        "kernel": outcome.plan.kernel_json(),
        "stop": {
            "reason": stop.reason,
            "detail": stop.detail,
            "rip": stop.rip,
            "value": stop.value,
            "place": None if place is None else str(place),
            "registers": dict(outcome.run.registers),
            "segments": {name: segment._asdict() for name, segment in outcome.run.segments.items()},
            "bits": outcome.run.bits or None,
            "code": outcome.run.code.hex(),
        },
        "handoff": None
        if handoff is None
        else {
            "registers": dict(handoff.registers),
            "segments": {name: segment._asdict() for name, segment in handoff.segments.items() if name != "tr"},
            "tr": handoff.segments["tr"]._asdict(),
            "mtrr_def_type": handoff.mtrr_def_type,
        },
        "start_info": tables.start_info._asdict() if tables and tables.start_info else None,
        "memmap": [entry._asdict() for entry in tables.memmap] if tables else [],
        "modules": [
            {**entry._asdict(), "cmdline": _text(line)}
            for entry, line in zip(tables.modules, tables.module_cmdlines, strict=True)
        ]
        if tables
        else [],
        "cmdline": _text(tables.cmdline) if tables else None,
        "findings": [finding._asdict() for finding in outcome.findings],
        "causes": [cause._asdict() for cause in diagnosis.causes] if diagnosis else [],
        "executed": [
            {
                "address": one.address,
                "bits": one.bits,
                "bytes": one.data.hex(),
                "text": one.text,
                "times": one.times,
                "place": None if one.place is None else str(one.place),
            }
            for one in diagnosis.history.executed
        ]
        if diagnosis
        else [],
        "blob": {"sha256": outcome.blob.sha256, "bytes": len(outcome.blob.data)},
        "counts": {"handoff": dict(handoff.counts) if handoff else None, "end": dict(outcome.run.counts)},
        "console": _text(outcome.console),
        "debug_console": _text(outcome.debug_console),
        "post_codes": list(outcome.post_codes),
    }


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode(errors="replace")
