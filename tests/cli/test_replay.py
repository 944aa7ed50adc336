"""`turnout replay` of a release that a server runs."""

import json
import time

from tests.documents import BRISK, FLEET, SERVICE

DOCUMENTS = f"{FLEET}---\n{SERVICE}---\n{BRISK}"


def test_a_release_is_decided_again_as_it_was_decided(turnout, kit, tmp_path):
    documents = tmp_path / "documents.yaml"
    documents.write_text(DOCUMENTS)
    other = tmp_path / "other.yaml"
    other.write_text(BRISK.replace("quick", "other"))
    with kit.serving(tmp_path) as serving:
        server = serving.server
        assert turnout("apply", "-f", documents, server=server).status == 0
        early = turnout("replay", "shop-v2", server=server)
        assert turnout("release", "shop", "v2", "--policy", "quick", server=server).status == 0
        deadline = time.monotonic() + 20
        while (said := turnout("replay", "shop-v2", "-o", "json", server=server)).status:
            assert "nothing was recorded" in said.err
            assert time.monotonic() < deadline
            time.sleep(0.2)
        text = turnout("replay", "shop-v2", server=server)
        under = turnout("replay", "shop-v2", "--policy", other, server=server)

    assert early.status == 1
    assert "no release is named" in early.err
    found = json.loads(said.out)
    assert (found["policy"], found["same"], found["left_out"]) == ("quick", True, 0)
    assert found["decisions"][0]["action"] == "start"
    assert any("start" in line for line in text.lines)
    assert text.lines[-1].startswith("progressing after ")
    assert any("under policy other" in line for line in under.lines)
