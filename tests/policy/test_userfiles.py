from controlplane.policy.loading import load

SEGMENT = b"""\
kind: Segment
name: beta
match: {any: [{users_file: lists/beta.txt}, {users: [zoe, adam, zoe]}]}
"""


def problems(**files):
    return [str(p) for p in load({name.replace("_", "."): text for name, text in files.items()}).problems]


def segment(content):
    return load({"a/s.yaml": SEGMENT, "a/lists/beta.txt": content})


def test_users_of_a_file_become_part_of_the_document():
    found = segment(b"# the first\nbob\n\n alice \nbob\n")

    assert not found.problems
    [listed, inline] = found.catalog.segment("beta").match.any
    assert listed.users == ("alice", "bob")
    assert inline.users == ("adam", "zoe")
    assert "users_file" not in found.catalog.to_json()


def test_what_is_wrong_with_a_file_is_said_where_it_is_named():
    where = "a/s.yaml:3:28: match.any[0].users_file:"
    cases = {
        b"": f"{where} lists/beta.txt has no user; one a line is needed",
        b"a\nb;c\n": f"{where} lists/beta.txt:2: 'b;c' has spaces at its ends, ';' or control characters",
        b"\xff": f"{where} lists/beta.txt is not UTF-8: invalid start byte at byte 0",
        b"x" * 129: f"{where} lists/beta.txt:1: 'xxx",
        "\n".join(
            map(str, range(10_001))
        ).encode(): f"{where} 'lists/beta.txt' has 10001 users; at most 10000",
    }
    for content, text in cases.items():
        found = segment(content)
        [problem] = map(str, found.problems)
        assert problem.startswith(text)
        assert found.refused == (("Segment", "beta"),)
    assert "mark them with a cookie, a header or a claim" in problem


def test_a_file_that_is_not_there():
    [problem] = map(str, load({"a/s.yaml": SEGMENT}).problems)

    assert problem == (
        "a/s.yaml:3:28: match.any[0].users_file: 'lists/beta.txt' is not among the files;"
        " it was looked for at a/lists/beta.txt"
    )


def test_ten_thousand_users_fit_in_a_document():
    users = ",".join(f"user-{i}" for i in range(10_000))
    found = load({"s.yaml": f"kind: Segment\nname: beta\nmatch: {{users: [{users}]}}\n".encode()})

    assert not found.problems
    assert len(found.catalog.segment("beta").match.users) == 10_000


def test_a_file_outside_of_the_folder_is_refused():
    for path in ("../beta.txt", "/etc/beta.txt", "beta.csv", "a/.hidden.txt"):
        text = SEGMENT.replace(b"lists/beta.txt", path.encode())
        [problem] = map(str, load({"s.yaml": text}).problems)
        assert "is not a file of users" in problem
