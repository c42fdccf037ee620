"""What is known already of a target's runs, and which of it may be relied on."""

from collections.abc import Callable, Iterable

from virnucpro_monitor.records import Configuration, Outcome, Protocol, Request, Run
from virnucpro_monitor.runner.surroundings import Surroundings


class Ledger:
    """What is known of a target's runs under one request and protocol."""

    def __init__(
        self, known: Iterable[Run], request: Request, weights_digest: str, protocol: Protocol
    ) -> None:
        self._request = request
        self._weights_digest = weights_digest
        self._protocol_digest = protocol.digest
        self._runs = [run for run in known if self._comparable(run)]
        self.backend = request.backend
        self.backend_known = False
        for run in self._runs:
            self._note_backend(run)

    def _note_backend(self, run: Run) -> None:
        if run.outcome.has_verdict:
            self.backend, self.backend_known = run.configuration.backend, True

    def _comparable(self, run: Run) -> bool:
        return (
            run.protocol_digest == self._protocol_digest
            and run.configuration.weights_digest == self._weights_digest
            and self._request.asks_for(run.configuration)
        )

    def add(self, run: Run) -> None:
        self._runs.append(run)
        self._note_backend(run)

    def configuration(self, weights_name: str, backend: str | None = None) -> Configuration:
        """The configuration of a new run; without `backend`, the one last seen."""
        request = self._request
        return Configuration(
            model=request.model,
            weights=weights_name,
            weights_digest=self._weights_digest,
            dtype=request.dtype,
            device=request.device.partition(":")[0],
            backend=backend or self.backend,
            token_budget=request.token_budget,
        )

    def settled(
        self, commit: str, benchmark_digest: str, here: Surroundings, *, retry_errors: bool
    ) -> Run | None:
        """The run that makes measuring this commit needless, None if there is none."""
        open_outcomes = {Outcome.NOT_RUN} | ({Outcome.ERROR} if retry_errors else set())
        return next(
            (
                run
                for run in reversed(self._runs)
                if run.commit.hash == commit
                and run.benchmark_digest == benchmark_digest
                and here.fit(run)
                and run.outcome not in open_outcomes
            ),
            None,
        )

    def twin(self, digest: str, benchmark_digest: str, here: Surroundings) -> Run | None:
        """A measured run of the same code on the same benchmark in the same environment."""
        return next(
            (
                run
                for run in reversed(self._runs)
                if run.outcome.has_verdict
                and run.code_digest == digest
                and run.benchmark_digest == benchmark_digest
                and here.fit(run)
            ),
            None,
        )

    def doubt(self, run: Run) -> str:
        """Why a new run should be measured once more before anybody relies on it; empty if not.

        Its verdict is another one than the last of the same code in the same set-up and
        environment, or the same input twice gave it other values.
        """
        if not run.outcome.has_verdict:
            return ""
        before = next((one for one in reversed(self._runs) if _alike(one, run)), None)
        if before is not None and before.outcome is not run.outcome:
            return f"{run.outcome}, where the same code {before.outcome} before in this set-up"
        # Without a value the gate failed for what is not finite, which may well be so every time.
        if any(gate.name == "repeat" and gate.passed is False and gate.value for gate in run.gates):
            return f"{run.outcome}, and gives other values for the same input"
        return ""

    def bridge(self, benchmark_digest: str, where: Callable[[str], Surroundings]) -> Run | None:
        """The last measured run, if none was measured where its commit would be measured now.

        Args:
            where: the surroundings of a commit, by its hash.
        """
        measured = [
            run
            for run in reversed(self._runs)
            if run.outcome.has_verdict and run.benchmark_digest == benchmark_digest
        ]
        if not measured or any(where(run.commit.hash).fit(run) for run in measured):
            return None
        return max(measured, key=lambda run: run.started_at)


def _alike(one: Run, run: Run) -> bool:
    """Whether nothing that is known could make the two verdicts differ."""
    return (
        one.outcome.has_verdict
        and one.code_digest is not None
        and one.code_digest == run.code_digest
        and one.benchmark_digest == run.benchmark_digest
        and one.configuration == run.configuration
        and one.environment == run.environment
    )
