# SPDX-License-Identifier: MIT
"""Scripts one after another, and making one short that fails.

What is broken in a guest stays so, a kernel reports some faults once, and a guest may be dead: after a script that
failed the next one is played in a fresh guest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from harness.ksm.fuzz.player import Player
from harness.ksm.fuzz.steps import Step, save


class Trials:
    """Plays scripts, and keeps the last one that failed."""

    def __init__(self, player: Player, start: Callable[[], Player], script: Path) -> None:
        """`player` is at its begin, and remains the caller's; `start` makes others. `script`: where to save."""
        self.player = player
        self.guests = 1
        """How many there were."""
        self.failing: list[Step] = []
        """The last script that failed."""
        self._given = player
        self._start = start
        self._script = script

    def __enter__(self) -> Trials:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave(kind, error, trace)

    def play(self, step: Step) -> None:
        """Play a step of the script. Raises what Player.play raises, the script saved."""
        self._renew()
        try:
            self.player.play(step)
        except Exception:
            self._save()
            raise

    def end(self) -> None:
        """End a script: what it leaves behind must go, too. Raises what Player.restart raises, the script saved."""
        if self.player.failed:
            return
        try:
            self.player.restart()
        except Exception:
            self._save()
            raise

    def shorten(self, tries: int = 100) -> None:
        """Leave out of the last script that failed whatever it fails without: halves, quarters ... single steps.

        A fault of another kind is one, too. Raises what `start` raises.
        """
        size = len(self.failing) // 2
        while size:
            at = 0
            while at < len(self.failing) > size:
                if not tries:
                    return
                tries -= 1
                if not self._fails(self.failing[:at] + self.failing[at + size :]):
                    at += size
            size //= 2

    def _fails(self, steps: Sequence[Step]) -> bool:
        self._renew()
        try:
            for step in steps:
                self.play(step)
            self.end()
        except Exception:
            return True
        return False

    def _renew(self) -> None:
        if self.player.failed:
            self._leave(None, None, None)
            self.player = self._start()
            self.guests += 1

    def _save(self) -> None:
        self.failing = list(self.player.played)
        save(self.failing, self._script, f"samepage replay {self._script}")

    def _leave(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.player.failed:
            self.player.give_up()
        elif self.player is not self._given:
            self.player.__exit__(kind, error, trace)
            self.player.guest.close()
