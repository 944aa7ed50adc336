"""A server on loopback that remembers what it got and answers as it is told."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.waiting import PATIENCE


class Receiver:
    """A server that remembers what it got and answers as it is told, while ``go_on`` is set.

    What ``refused`` is true of is answered with 503, and by none of the ``answers``.
    """

    def __init__(self):
        self.got, self.answers = [], []
        self.refused = lambda body: False
        self.go_on = threading.Event()
        self.go_on.set()
        self.came = threading.Condition()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                length = int(self.headers["content-length"])
                text = self.rfile.read(length)
                if len(text) < length:
                    return  # whoever sent it was killed: it was not told
                body = json.loads(text)
                with outer.came:
                    outer.got.append((self.headers["idempotency-key"], self.headers["content-type"], body))
                    outer.came.notify_all()
                outer.go_on.wait(PATIENCE)
                answers = [503] if outer.refused(body) else outer.answers
                self.send_response(answers.pop(0) if answers else 204)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def wait(self, count, seconds=PATIENCE):
        """Wait until so many requests came; False if they did not."""
        with self.came:
            return self.came.wait_for(lambda: len(self.got) >= count, seconds)
