from __future__ import annotations

import subprocess
import sys

from controlplane.demo.ports import free_ports

# It says what it was given, and lives until its input ends.
ASK = """\
import sys
from controlplane.demo.ports import free_ports
print(*free_ports(500), flush=True)
sys.stdin.read()
"""


def test_free_ports_are_different_and_can_be_bound():
    ports = free_ports(20)

    assert len(set(ports)) == 20
    assert all(port < 32_768 for port in ports)


def test_a_port_is_given_once_as_long_as_its_process_lives():
    line, pipe = [sys.executable, "-c", ASK], subprocess.PIPE
    asking = [subprocess.Popen(line, stdin=pipe, stdout=pipe, text=True) for _ in range(4)]
    given = [*free_ports(500), *free_ports(500)]
    for process in asking:
        given += map(int, process.stdout.readline().split())
    for process in asking:
        process.communicate()

    assert len(given) == 3000
    assert len(set(given)) == 3000
