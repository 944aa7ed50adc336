"""Lives of the whole loop over one store: what holds of any of them at any time."""

from __future__ import annotations

from hypothesis.stateful import RuleBasedStateMachine, invariant

from tests.app.site import plain


class Lives(RuleBasedStateMachine):
    """Subclasses set ``loop``, ``store`` and ``site``; ``expected`` and ``stored`` are what was committed."""

    expected = None
    stored = None

    def _run(self, coroutine):
        return self.loop.run_until_complete(coroutine)

    @invariant()
    def the_store_is_what_was_committed(self):
        if self.expected is not None:
            assert self._run(self.store.world()) == self.expected
            assert self.site.loop.world == self.expected

    @invariant()
    def memory_is_what_was_stored(self):
        for key, body in self.stored["evidence"].items() if self.stored else ():
            state = self.expected.releases[key.partition("#")[0]]
            if state.active and state.key == key:
                assert plain(self.site.loop.watches[key].to_json()) == body
