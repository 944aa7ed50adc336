"""The sample service, of which no health check fails, as a few of the requests do; no test."""

from __future__ import annotations

from controlplane.demo.sample import Sample, main


class Sound(Sample):
    """A version that is well."""

    def answer(self, head):
        seconds, answer = super().answer(head)
        return seconds, self._ok if head.startswith(b"GET /healthz ") else answer


if __name__ == "__main__":
    main(Sound)
