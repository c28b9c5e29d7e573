"""What `pvhboot boot` tells of a boot, and of all that has watched it."""

from typing import TYPE_CHECKING, NamedTuple

from ..session import Outcome

if TYPE_CHECKING:
    from ..diagnosis import Diagnosis
    from ..replay import Replay
    from ..sanitizer import Sanitizer
    from ..stats import Stats


class Watched(NamedTuple):
    """An outcome, why it failed if it did, and who has watched: None is one that has not."""

    outcome: Outcome
    diagnosis: "Diagnosis | None"
    sanitizer: "Sanitizer | None"
    replay: "Replay | None"
    stats: "Stats | None"

    @property
    def ok(self) -> bool:
        """The run ended as asked with a clean handoff, the sanitizer has found nothing, and the replay has gone as its
        transcript says."""
        if self.sanitizer is not None and self.sanitizer.findings:
            return False
        return self.outcome.ok and (self.replay is None or self.replay.report().ok)

    def text(self, verbose: bool, *, at_console: bool) -> str:
        """For a person; of a session `at_console` that is ok in few words."""
        from .text import outcome_text, session_text

        report = session_text if at_console and self.outcome.ok else outcome_text
        parts = [report(self.outcome, verbose, self.diagnosis)]
        if self.sanitizer is not None:
            from .sanitizer import trespasses_text

            parts.append(trespasses_text(self.sanitizer.findings))
        if self.replay is not None:
            parts += self.replay.report().lines()
        if self.stats is not None:
            from .stats import stats_text

            parts.append(stats_text(self.stats, self.outcome))
        return "\n".join(parts)

    def to_json(self) -> dict[str, object]:
        """For a program."""
        from .as_json import outcome_to_json

        data = outcome_to_json(self.outcome, self.diagnosis) | {"ok": self.ok}
        if self.sanitizer is not None:
            data["sanitizer"] = [trespass.to_json() for trespass in self.sanitizer.findings]
        if self.replay is not None:
            data["replay"] = self.replay.report().to_json()
        if self.stats is not None:
            from .stats import stats_to_json

            data["stats"] = stats_to_json(self.stats, self.outcome)
        return data
