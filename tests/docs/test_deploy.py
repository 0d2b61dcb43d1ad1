"""The container and the service where no engine runs: parsed, and the rules that matter checked."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from documentation import ROOT

yaml = pytest.importorskip("yaml")


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in text.splitlines() if line.strip()]


def understood(words: list[str]) -> None:
    from dermafuse.cli import parser

    assert words[0].endswith("dermafuse")
    parser().parse_args(words[1:])


def test_the_image_is_small_pinned_without_rights_and_says_whether_it_is_ready() -> None:
    found = instructions()
    bases = [value.split()[0] for name, value in found if name == "FROM"]
    assert bases
    assert all(re.fullmatch(r"python:3\.\d+-slim-[a-z]+", base) for base in bases)  # plain name, no :latest
    last = [name for name, _ in found]
    final = found[len(last) - 1 - last[::-1].index("FROM") :]
    (user,) = [value for name, value in final if name == "USER"]
    assert user.isdigit()
    assert int(user) > 0
    (health,) = [value for name, value in final if name == "HEALTHCHECK"]
    assert "/v2/health/ready" in health
    check = json.loads(health[health.index("[") :])
    compile(check[2], "health check", "exec")
    assert not any(name == "ADD" for name, _ in found)
    run = " ".join(value for name, value in found if name == "RUN")
    assert '".[serve]"' in run
    assert "--constraint constraints.txt" in run
    assert not re.search(r"https?://|index-url|sudo", run)
    exec_form = {name: json.loads(value) for name, value in final if name in ("ENTRYPOINT", "CMD")}
    understood([*exec_form["ENTRYPOINT"], *exec_form["CMD"]])


def test_what_the_image_is_built_from_exists_and_nothing_else_is_sent() -> None:
    lines = (ROOT / ".dockerignore").read_text().split()
    assert lines[0] == "*"
    kept = [line[1:] for line in lines if line.startswith("!")]
    assert all((ROOT / name).exists() for name in kept)
    assert {"src", "pretrained", "pyproject.toml", "constraints.txt"} <= set(kept)


def test_compose_has_a_read_only_file_system_no_rights_and_listens_to_this_machine() -> None:
    told = yaml.safe_load((ROOT / "compose.yaml").read_text())
    assert told.keys() == {"services", "secrets"}
    (service,) = told["services"].values()
    known = {
        "build": str,
        "image": str,
        "read_only": bool,
        "tmpfs": list,
        "cap_drop": list,
        "security_opt": list,
        "ports": list,
        "secrets": list,
        "mem_limit": str,
        "pids_limit": int,
        "stop_grace_period": str,
        "restart": str,
    }
    assert {key: type(value) for key, value in service.items()} == known
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert set(service["secrets"]) == told["secrets"].keys()
    assert not service["image"].endswith(":latest")
    entry = next(json.loads(value) for name, value in instructions() if name == "CMD")
    assert entry[1] == f"/run/secrets/{service['secrets'][0]}"


def test_the_service_is_a_unit_that_systemd_understands_and_a_command_that_we_do(tmp_path: Path) -> None:
    text = (ROOT / "deploy" / "dermafuse.service").read_text()
    command = next(line for line in text.splitlines() if line.startswith("ExecStart=")).partition("=")[2]
    understood(shlex.split(command))
    for line in ("DynamicUser=yes", "NoNewPrivileges=yes", "ProtectSystem=strict"):
        assert line in text
    if shutil.which("systemd-analyze") is None:
        pytest.skip("SYSTEMD MISSING: the unit is not verified")
    unit = tmp_path / "dermafuse.service"
    unit.write_text(text.replace("/opt/dermafuse/bin/dermafuse", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
    complaints = [line for line in done.stderr.splitlines() if "dermafuse.service" in line]
    assert not complaints


def test_the_proxy_has_matched_braces_closed_lines_and_the_limit_of_the_server() -> None:
    text = re.sub(r"#.*", "", (ROOT / "deploy" / "nginx.conf").read_text())
    assert text.count("{") == text.count("}") == 3
    assert all(line.strip()[-1] in "{};" for line in text.splitlines() if line.strip())
    assert "client_max_body_size 32m" in text
    assert "proxy_request_buffering off" in text
    name = re.search(r"server_name (\S+);", text)
    assert name
    assert f"--allowed-host {name[1]}" in (ROOT / "deploy" / "dermafuse.service").read_text()
