"""Lives of `turnout serve`: real processes that end by SIGKILL, quickly followed by the next one."""

from __future__ import annotations

import signal

from tests.envoy.conftest import Site
from tests.waiting import PATIENCE


class Mortal(Site):
    """An installation whose control plane is born to be killed."""

    async def live(self, failpoint=""):
        """Start the control plane, and do not wait for it: it may be killed before it is ready."""
        await self.begin(failpoint=failpoint)

    def eager(self, node):
        """Return a bootstrap by which an Envoy comes back at once, however often it was left alone."""
        made = self.bootstrap(node)
        (service,) = made["dynamic_resources"]["ads_config"]["grpc_services"]
        pause = {"base_interval": "0.05s", "max_interval": "0.1s"}
        service["envoy_grpc"]["retry_policy"]["retry_back_off"] = pause
        return made

    def end(self):
        """Kill the control plane now, wherever it is."""
        self.life.kill()

    async def death(self, within=PATIENCE):
        """Wait until the process was killed at its failpoint."""
        status = await self.life.ended(within)
        assert status == -signal.SIGKILL, f"ended with {status}\n{self.log[-3000:]}"
