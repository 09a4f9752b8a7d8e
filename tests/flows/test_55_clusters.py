"""Clusters that a configuration chooses: safe addresses, TLS, SLURM jobs, Kubernetes pods."""

from __future__ import annotations

import contextlib
import http.server
import itertools
import json
import os
import re
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

from bperp.flows import cluster_connection, doctor, executors
from bperp.flows.cluster_kubernetes import cluster_resource
from bperp.flows.cluster_slurm import SlurmWorkers
from bperp.flows.cluster_tls import Endpoint, TlsFiles, temporary_certificates
from bperp.flows.config import load_config
from bperp.flows.config_sections import ClusterOptions, KubernetesOptions, SlurmOptions
from bperp.flows.engine import DaskExecutor, SerialExecutor, StageContext, run_stages
from bperp.flows.selfcheck import DEFAULTS, STAGES, run_selfcheck
from bperp.stores.cube import CubeStore
from bperp.stores.errors import BperpError, ConfigurationError, SecurityError, StorageError

REPOSITORY = Path(__file__).resolve().parents[2]
BASE = "root: out\nslc: ['*.zip']\ndem: {path: dem.tif}\n"
DASK = [sys.executable, "-m", "dask"]
ANY_PORT = ["--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
GIGABYTE = 1_000_000_000


def loaded(folder: Path, compute: str) -> Any:
    path = folder / "stack.yaml"
    path.write_text(BASE + f"compute: {compute}\n", encoding="utf-8")
    return load_config(path)


def run(root: Path, executor: Any, **options: Any) -> Any:
    context = StageContext(options={"selfcheck": {**DEFAULTS, **options}})
    return run_stages(STAGES, context, CubeStore(str(root)), executor)


def digests(root: Path) -> dict[str, bytes]:
    found = [*root.glob("markers/*"), *root.glob("selfcheck/**/*")]
    return {str(path.relative_to(root)): path.read_bytes() for path in found if path.is_file()}


def wait_for(condition: Callable[[], Any], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def receipts(root: Path) -> int:
    return len(list(root.glob("receipts/**/*.json")))


# --- which schedulers may be talked to -------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("tcp://192.0.2.7:8786", "not on this machine"),
        ("tcp://0.0.0.0:8786", "not on this machine"),
        ("tcp://[2001:db8::1]:8786", "not on this machine"),
        ("tcp://scheduler:8786", "not on this machine"),
        ("tcp://127.0.0.1.example.org:8786", "not on this machine"),
        ("tls://192.0.2.7:8786", "no certificates"),
        ("tls://127.0.0.1:8786", "no certificates"),
        ("tcp://127.0.0.1@192.0.2.7:8786", "neither"),
        ("tcp://127.0.0.1", "neither"),
        ("tcp://127.0.0.1:many", "neither"),
        ("ws://127.0.0.1:8786", "neither"),
        ("inproc://127.0.0.1/1/1", "neither"),
        ("192.0.2.7:8786", "neither"),
    ],
)
def test_an_unsafe_scheduler_is_refused_before_anything_connects(
    address: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SecurityError, match=f"X906.*{words}") as caught:
        loaded(tmp_path, f"{{cluster: {{kind: address, address: '{address}'}}}}")
    assert caught.value.exit_code == 6
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("connected"))
    with pytest.raises(SecurityError, match=f"X906.*{words}"):
        run(tmp_path / "root", DaskExecutor(address=address))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.7.6", "[::1]", "localhost"])
def test_this_machine_needs_no_certificates(host: str, tmp_path: Path) -> None:
    config = loaded(tmp_path, f"{{cluster: {{kind: address, address: 'tcp://{host}:8786'}}}}")
    assert config.compute.cluster.address == f"tcp://{host}:8786"


def test_tls_files_are_found_beside_the_configuration(tmp_path: Path) -> None:
    text = "{kind: address, address: 'tls://a:1', tls_ca: c, tls_certificate: d, tls_key: k}"
    cluster = loaded(tmp_path, f"{{cluster: {text}}}").compute.cluster
    assert cluster.tls_paths == tuple(str(tmp_path / name) for name in "cdk")
    with pytest.raises(ConfigurationError, match=f"C104 {tmp_path}/c: a TLS file"):
        run(tmp_path / "root", DaskExecutor(cluster=cluster))


@pytest.mark.parametrize(
    ("compute", "code", "words"),
    [
        ("{cluster: {kind: address}}", "C102", "together with the address"),
        ("{cluster: {address: 'tcp://127.0.0.1:1'}}", "C102", "kind: address"),
        ("{cluster: {kind: slurm}}", "C102", "compute.workers"),
        ("{workers: 2, engine: serial, cluster: {kind: slurm}}", "C102", "serial uses no"),
        ("{cluster: {tls_ca: a, tls_certificate: b, tls_key: c}}", "C102", "choose a kind"),
        ("{workers: 2, cluster: {kind: slurm, tls_ca: a}}", "C102", "three files"),
        ("{workers: 2, cluster: {kind: kubernetes}}", "C102", "image or its cert"),
        (
            "{cluster: {kind: address, address: 'tcp://127.0.0.1:1', tls_ca: a, "
            "tls_certificate: b, tls_key: c}}",
            "C102",
            "write tls://",
        ),
        ("{cluster: {kind: slurmm}}", "C102", "slurm"),
        ("{cluster: {slurm: {walltime: 2h}}}", "C102", "hours:minutes:seconds"),
        ("{cluster: {slurm: {queue: \"a\\nrm -rf ~\"}}}", "X904", "unsafe"),
        ("{cluster: {slurm: {account: 'a b'}}}", "X904", "unsafe"),
        ("{cluster: {slurm: {job_extra: ['--a\\n', \"-b\\n\"]}}}", "X904", "unsafe"),
        ("{cluster: {slurm: {job_extra: ['rm -rf']}}}", "X904", "such as --constraint"),
        ("{cluster: {slurm: {workers_per_job: 0}}}", "C102", "1 to 1024"),
        ("{cluster: {kubernetes: {namespace: Upper}}}", "X904", "lower-case"),
        ("{cluster: {kubernetes: {image: 'a b'}}}", "X904", "an image"),
        ("{cluster: {patience_s: 0}}", "C102", "1 to 604800"),
        ("{cluster: {slrum: {}}}", "C101", "did you mean 'slurm'"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit_together(
    compute: str, code: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(BperpError, match=words) as caught:
        loaded(tmp_path, compute)
    assert caught.value.code == code
    assert "\n" not in str(caught.value)


def test_emptied_sections_mean_their_defaults(tmp_path: Path) -> None:
    plain = loaded(tmp_path, "{}").compute
    assert loaded(tmp_path, "{cluster: }").compute == plain
    assert loaded(tmp_path, "{cluster: {slurm: , kubernetes: }}").compute == plain


@pytest.mark.parametrize("path", sorted((REPOSITORY / "deploy").glob("*/stack.yaml")))
def test_examples_are_valid(path: Path) -> None:
    cluster = load_config(path).compute.cluster
    assert cluster.kind == {"slurm": "slurm", "k8s": "kubernetes"}[path.parent.name]


def test_the_doctor_tells_which_kinds_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tomllib

    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    for kind, package in doctor.CLUSTER_PACKAGES.items():
        assert package in extras[kind]
    (tmp_path / "sbatch").touch(0o755)
    (tmp_path / "kubeconfig").touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    there = {item.name: item for item in doctor.examine(thorough=False).symptoms}
    assert re.fullmatch(r"dask-jobqueue [0-9.]+, sbatch", there["cluster slurm"].found)
    assert re.fullmatch(r"dask-kubernetes [0-9.]+, kube.*", there["cluster kubernetes"].found)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(doctor.CLUSTER_PACKAGES, "slurm", "no-such-package>=1")
    monkeypatch.setitem(doctor.CLUSTER_PACKAGES, "kubernetes", "dask-kubernetes>=9999")
    absent = {item.name: item for item in doctor.examine(thorough=False).symptoms}
    assert absent["cluster slurm"].found == "no no-such-package, no sbatch"
    assert "(too old)" in absent["cluster kubernetes"].found
    assert absent["cluster slurm"].level == "ok"


@pytest.mark.parametrize(("version", "level"), [("2026.1.0", "error"), ("2026.8.0", "ok")])
def test_a_scheduler_with_known_holes_is_an_error(
    version: str, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = metadata.version
    monkeypatch.setattr(
        metadata, "version", lambda name: version if name == "distributed" else real(name)
    )
    (found,) = (s for s in doctor.examine(thorough=False).symptoms if s.name == "distributed")
    assert found.level == level


# --- certificates ----------------------------------------------------------------------------


def test_an_endpoint_travels_as_text_without_its_key(tmp_path: Path) -> None:
    tls = TlsFiles("/a b/ca?.pem", "/ü&/c=1.pem", "/k#%20/key.pem")
    endpoint = Endpoint("tls://192.0.2.7:8786", tls)
    assert Endpoint.parse(str(endpoint)) == endpoint
    assert Endpoint.parse("tcp://127.0.0.1:1") == Endpoint("tcp://127.0.0.1:1")
    with temporary_certificates(tmp_path) as files:
        secret = "".join(Path(files.key).read_text().splitlines()[1:-1])
        assert secret[:40] not in str(Endpoint("tls://a:1", files))


def test_temporary_certificates_are_the_owners_and_go_away(tmp_path: Path) -> None:
    def interrupted() -> None:
        with temporary_certificates(tmp_path) as files:
            (folder,) = tmp_path.iterdir()
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
            assert files.as_security().require_encryption is True
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_certificates_that_cannot_be_written_are_r807(tmp_path: Path) -> None:
    absent = str(tmp_path / "absent")
    with pytest.raises(StorageError, match=f"R807 {absent}"), temporary_certificates(absent):
        pass


# --- clusters that run already ---------------------------------------------------------------


class Processes:
    """Schedulers and workers of somebody else, as processes of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        path = f"{environment.pop('PYTHONPATH', '')}:{Path(__file__).parent}".lstrip(":")
        with (self.folder / f"output-{len(self.started)}").open("wb") as output:
            process = subprocess.Popen(
                [*DASK, *arguments],
                env={**os.environ, "PYTHONPATH": path, **environment},
                cwd=self.folder,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def scheduler(self, scheme: str, *options: str) -> str:
        file = self.folder / f"scheduler-{len(self.started)}.json"
        where = ["--host", f"{scheme}://127.0.0.1", "--port", "0", "--scheduler-file", str(file)]
        self.start("scheduler", *where, *ANY_PORT, *options)
        wait_for(lambda: file.exists() and file.read_text().endswith("}"))
        return str(json.loads(file.read_text())["address"])

    def worker(self, address: str, *options: str, **environment: str) -> subprocess.Popen[bytes]:
        one = ["--nthreads", "1", "--memory-limit", str(GIGABYTE), *ANY_PORT]
        return self.start("worker", address, *one, *options, **environment)

    def end(self) -> None:
        for process in self.started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    found = Processes(tmp_path_factory.mktemp("processes"))
    yield found
    found.end()


def authority(folder: Path) -> dict[str, TlsFiles]:
    """Make an authority and what it signs: a certificate of the cluster, one of its user."""
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    def write(name: str, subject: str, issuer: str, signer: Any, *, is_authority: bool) -> Any:
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        names = [
            x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])
            for text in (subject, issuer)
        ]
        certificate = (
            x509.CertificateBuilder(names[1], names[0], key.public_key(), 1 + len(name))
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
            .sign(signer or key, hashes.SHA256())
        )
        pem = serialization.Encoding.PEM
        (folder / f"{name}.pem").write_bytes(certificate.public_bytes(pem))
        text = key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (folder / f"{name}-key.pem").write_bytes(text)
        return key

    signer = write("ca", "authority", "authority", None, is_authority=True)
    for name in ("cluster", "user"):
        write(name, name, "authority", signer, is_authority=False)
    ca = str(folder / "ca.pem")
    return {
        name: TlsFiles(ca, str(folder / f"{name}.pem"), str(folder / f"{name}-key.pem"))
        for name in ("cluster", "user")
    }


def arguments_of(tls: TlsFiles) -> list[str]:
    return ["--tls-ca-file", tls.authority, "--tls-cert", tls.certificate, "--tls-key", tls.key]


@pytest.fixture(scope="module")
def secured(processes: Processes) -> tuple[str, TlsFiles]:
    """A scheduler and two workers with TLS, and the certificates of their user."""
    certificates = authority(processes.folder)
    own = arguments_of(certificates["cluster"])
    address = processes.scheduler("tls", *own)
    for _ in range(2):
        processes.worker(address, *own)
    return address, certificates["user"]


@pytest.fixture(scope="module")
def plain(processes: Processes) -> str:
    """A scheduler with a worker on the loopback address."""
    address = processes.scheduler("tcp")
    processes.worker(address)
    return address


def cluster_of(secured: tuple[str, TlsFiles], folder: Path) -> ClusterOptions:
    address, tls = secured
    files = f"tls_ca: {tls.authority}, tls_certificate: {tls.certificate}, tls_key: {tls.key}"
    text = f"{{cluster: {{kind: address, address: '{address}', {files}}}}}"
    cluster: ClusterOptions = loaded(folder, text).compute.cluster
    return cluster


@pytest.mark.cluster
@pytest.mark.slow
def test_a_cluster_with_tls_computes_the_same_bytes(
    secured: tuple[str, TlsFiles], tmp_path: Path
) -> None:
    executor = DaskExecutor(17, cluster=cluster_of(secured, tmp_path))
    wait_for(lambda: executor.workers == 2)
    assert executor.memory_limit_bytes == GIGABYTE
    handed_on = executor.start()
    assert run(tmp_path / "tls", executor).tasks_run == 12
    run(tmp_path / "serial", SerialExecutor())
    assert digests(tmp_path / "tls") == digests(tmp_path / "serial")
    # What Prefect hands to its tasks is enough to connect.
    assert run_selfcheck(str(tmp_path), DaskExecutor(address=handed_on))["wrong"] == 0


@pytest.mark.cluster
@pytest.mark.slow
def test_nobody_gets_in_without_a_certificate_of_the_authority(
    secured: tuple[str, TlsFiles], tmp_path: Path
) -> None:
    address = secured[0]
    host, port = address.removeprefix("tls://").split(":")
    context = ssl.create_default_context(cafile=secured[1].authority)
    context.check_hostname = False

    def knock() -> None:
        with (
            socket.create_connection((host, int(port)), timeout=10) as connection,
            context.wrap_socket(connection) as secure,
        ):
            # TLS 1.3 tells a client without certificate when it reads first.
            secure.recv(1)

    with pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"):
        knock()
    with temporary_certificates(tmp_path) as others:
        stranger = DaskExecutor(address=str(Endpoint(address, others)), patience_s=3)
        with pytest.raises(StorageError, match=f"R813 {address}"):
            run(tmp_path / "stranger", stranger)
    assert not list((tmp_path / "stranger").glob("receipts/**/*.json"))


PROGRAM = """
import sys
from bperp.flows.config_sections import ClusterOptions
from bperp.flows.engine import DaskExecutor, StageContext, run_stages
from bperp.flows.selfcheck import DEFAULTS, STAGES
from bperp.stores.cube import CubeStore

if __name__ == "__main__":
    context = StageContext(options={"selfcheck": {**DEFAULTS, "delay_s": 0.4}})
    cluster = ClusterOptions.model_validate_json(sys.argv[2])
    executor = DaskExecutor(2, 1_000_000_000, cluster=cluster)
    try:
        run_stages(STAGES, context, CubeStore(sys.argv[1]), executor)
    except KeyboardInterrupt:
        sys.exit(130)
"""


def interrupt_a_run(root: Path, cluster: ClusterOptions) -> None:
    """Start a run in a process of its own and send it SIGTERM when it has some receipts."""
    command = [sys.executable, "-c", PROGRAM, str(root), cluster.model_dump_json()]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=root.parent)
    wait_for(lambda: receipts(root) >= 2 or process.poll() is not None)
    sent = time.monotonic()
    process.terminate()
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert time.monotonic() - sent < 10
    assert "Traceback" not in errors
    assert not (root / "run.lock").exists()


@pytest.mark.cluster
@pytest.mark.slow
def test_sigterm_leaves_a_foreign_cluster_clean_and_the_run_resumes(
    secured: tuple[str, TlsFiles], tmp_path: Path
) -> None:
    from distributed import Client

    cluster, root = cluster_of(secured, tmp_path), tmp_path / "run"
    interrupt_a_run(root, cluster)

    def held(dask_scheduler: Any = None) -> int:
        return len(dask_scheduler.tasks)

    security = secured[1].as_security()
    with Client(secured[0], security=security, set_as_default=False) as client:
        wait_for(lambda: client.run_on_scheduler(held) == 0, 10)
    before = receipts(root)
    assert 0 < run(root, DaskExecutor(cluster=cluster), delay_s=0.4).tasks_run <= 12
    assert before < receipts(root) == 12
    run(tmp_path / "serial", SerialExecutor(), delay_s=0.4)
    assert digests(root) == digests(tmp_path / "serial")


@pytest.mark.cluster
@pytest.mark.slow
def test_workers_with_another_version_are_refused(processes: Processes, tmp_path: Path) -> None:
    info = tmp_path / "bperp-0.0.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bperp\nVersion: 0.0.0\n")
    address = processes.scheduler("tcp")
    processes.worker(address, PYTHONPATH=str(tmp_path))
    with pytest.raises(StorageError, match=r"R816 tcp://.*found bperp 0\.0\.0"):
        run(tmp_path / "root", DaskExecutor(address=address))


@contextlib.contextmanager
def during(root: Path, action: Callable[[], Any]) -> Iterator[None]:
    """Do something as soon as a run has written some receipts."""
    thread = threading.Thread(target=lambda: (wait_for(lambda: receipts(root) >= 2), action()))
    thread.start()
    yield
    thread.join()


def scheduler_process(processes: Processes, address: str) -> subprocess.Popen[bytes]:
    files = {json.loads(p.read_text())["address"]: p for p in processes.folder.glob("sched*.json")}
    number = int(re.findall(r"\d+", files[address].name)[0])
    return processes.started[number]


@pytest.mark.cluster
@pytest.mark.slow
def test_a_scheduler_that_falls_silent_is_r813(
    processes: Processes, plain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (cluster_connection, executors):
        monkeypatch.setattr(module, "ANSWER_S", 2.0)
    monkeypatch.setattr(cluster_connection, "_CHECK_S", 0.5)
    scheduler = scheduler_process(processes, plain)
    stop = lambda: os.killpg(scheduler.pid, signal.SIGSTOP)  # noqa: E731
    started = time.monotonic()
    with during(tmp_path, stop), pytest.raises(StorageError, match=f"R813 {plain}") as caught:
        run(tmp_path, DaskExecutor(address=plain), delay_s=0.4)
    os.killpg(scheduler.pid, signal.SIGCONT)
    assert caught.value.exit_code == 4
    assert time.monotonic() - started < 40
    assert not (tmp_path / "run.lock").exists()
    assert run(tmp_path, DaskExecutor(address=plain), delay_s=0.4).tasks_run <= 12


@pytest.mark.cluster
@pytest.mark.slow
def test_a_scheduler_that_dies_is_r813_and_the_run_resumes(
    processes: Processes, plain: str, tmp_path: Path
) -> None:
    root = tmp_path / "run"
    scheduler = scheduler_process(processes, plain)
    kill = lambda: os.killpg(scheduler.pid, signal.SIGKILL)  # noqa: E731
    started = time.monotonic()
    with during(root, kill), pytest.raises(StorageError, match=f"R813 {plain}"):
        run(root, DaskExecutor(address=plain), delay_s=0.4)
    assert time.monotonic() - started < 60
    assert 0 < run(root, SerialExecutor(), delay_s=0.4).tasks_run < 12
    run(tmp_path / "serial", SerialExecutor(), delay_s=0.4)
    assert digests(root) == digests(tmp_path / "serial")


# --- SLURM -----------------------------------------------------------------------------------

SBATCH = """#!/bin/sh
# Runs the job here, in a process group of its own, as SLURM would on a node.
name="$FAKE_SLURM/$$"
number=1
until mkdir "$FAKE_SLURM/slot-$number" 2>/dev/null; do number=$((number + 1)); done
test "$number" -le "${MOST_JOBS:-99}" || exit 1
cp "$1" "$name.sh"
setsid bash "$name.sh" >"$name.out" 2>&1 </dev/null &
echo $! >"$name.pid"
echo "Submitted batch job $$"
"""
SCANCEL = """#!/bin/sh
echo "$1" >>"$FAKE_SLURM/cancelled"
kill -TERM -- "-$(cat "$FAKE_SLURM/$1.pid")"
"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Put commands on the PATH that take the place of SLURM's; return where their jobs are."""

    def install(sbatch: str = SBATCH) -> Path:
        programs, jobs = tmp_path / "bin", tmp_path / "jobs"
        for folder in (programs, jobs, tmp_path / "shared"):
            folder.mkdir()
        for name, text in (("sbatch", sbatch), ("scancel", SCANCEL)):
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
        monkeypatch.setenv("FAKE_SLURM", str(jobs))
        return jobs

    return install


def slurm_options(folder: Path, **options: Any) -> SlurmOptions:
    places = {"interface": "lo", "shared_directory": str(folder / "shared")}
    return SlurmOptions(**{**places, **options})


@pytest.mark.cluster
def test_the_job_script_says_what_a_worker_may_use(
    slurm: Callable[..., Path], tmp_path: Path
) -> None:
    slurm("#!/bin/sh\necho Submitted batch job 7\n")
    options = slurm_options(
        tmp_path,
        queue="long",
        account="insar",
        walltime="1-02:00:00",
        workers_per_job=4,
        local_directory="$SCRATCH",
        job_extra=("--constraint=skylake",),
    )
    cluster = SlurmWorkers(options, 6, 1_500_000_000)
    try:
        script, (folder,) = cluster.job_script(), list((tmp_path / "shared").iterdir())
        key = (folder / "key.pem").read_text()
    finally:
        cluster.close()
    lines = script.splitlines()
    assert [line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH")] == [
        "-J bperp",
        "-p long",
        "-A insar",
        "-n 1",
        "--cpus-per-task=4",
        # Four workers of 1.5 GB and 300 MB for what watches them, in units of 2**20 bytes.
        "--mem=6009M",
        "-t 1-02:00:00",
        "-o /dev/null",
        "-e /dev/null",
        "--constraint=skylake",
    ]
    exports = dict(line.removeprefix("export ").split("=") for line in lines if "export" in line)
    assert exports["OMP_NUM_THREADS"] == exports["NUMBA_NUM_THREADS"] == "1"
    assert exports["DASK_DISTRIBUTED__WORKER__MEMORY__SPILL"] == "False"
    assert exports["DASK_DISTRIBUTED__WORKER__MEMORY__TERMINATE"] == "0.95"
    words = lines[-1].split()
    assert words[:4] == [sys.executable, "-m", "distributed.cli.dask_worker", words[3]]
    assert words[3].startswith("tls://127.0.0.1:")
    pairs = dict(itertools.pairwise(words))
    assert pairs["--nthreads"] == "1"
    assert pairs["--nworkers"] == "4"
    assert pairs["--memory-limit"] == "1500000000"
    assert pairs["--preload"] == "bperp.flows.worker_preload"
    assert pairs["--local-directory"] == "$SCRATCH"
    assert pairs["--dashboard-address"] == "127.0.0.1:0"
    assert "--nanny" in words
    assert "--no-dashboard" in words
    assert pairs["--tls-key"] == str(folder / "key.pem")
    assert key.splitlines()[1] not in script
    assert list((tmp_path / "shared").iterdir()) == []


@pytest.mark.cluster
@pytest.mark.slow
def test_a_run_in_slurm_jobs_ends_with_all_jobs_cancelled(
    slurm: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = slurm()
    options = ClusterOptions(
        kind="slurm", slurm=slurm_options(tmp_path, log_directory=str(tmp_path / "logs"))
    )
    # One more than the limit of this queue allows.
    monkeypatch.setenv("MOST_JOBS", "2")
    executor = DaskExecutor(3, GIGABYTE, cluster=options)
    assert executor.start().startswith("tls://127.0.0.1:")
    assert run(tmp_path / "slurm", executor).tasks_run == 12
    run(tmp_path / "serial", SerialExecutor())
    assert digests(tmp_path / "slurm") == digests(tmp_path / "serial")
    started = {path.stem for path in jobs.glob("*.pid")}
    assert len(started) == 2
    assert set((jobs / "cancelled").read_text().split()) == started
    wait_for(lambda: not living(jobs))
    assert list((tmp_path / "shared").iterdir()) == []


@pytest.mark.cluster
@pytest.mark.slow
def test_sigterm_cancels_the_jobs(slurm: Callable[..., Path], tmp_path: Path) -> None:
    jobs = slurm()
    interrupt_a_run(tmp_path / "run", ClusterOptions(kind="slurm", slurm=slurm_options(tmp_path)))
    assert len((jobs / "cancelled").read_text().split()) == 2
    wait_for(lambda: not living(jobs))
    assert list((tmp_path / "shared").iterdir()) == []


@pytest.mark.cluster
@pytest.mark.slow
def test_a_job_that_has_ended_is_replaced(
    slurm: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dask
    import distributed  # noqa: F401 (its defaults come before the setting below)

    monkeypatch.setattr(cluster_connection, "_CHECK_S", 0.5)
    jobs, root = slurm(), tmp_path / "run"
    options = ClusterOptions(kind="slurm", slurm=slurm_options(tmp_path))

    def reach_walltime() -> None:
        (file,) = jobs.glob("*.pid")
        os.killpg(int(file.read_text()), signal.SIGKILL)

    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "1s"}),
        during(root, reach_walltime),
    ):
        summary = run(root, DaskExecutor(1, GIGABYTE, cluster=options), delay_s=0.2)
    assert summary.tasks_run == 12
    assert len(list(jobs.glob("*.pid"))) == 2
    wait_for(lambda: not living(jobs))


def living(jobs: Path) -> list[int]:
    """Return the process groups of jobs in which somebody still runs."""
    groups = {int(path.read_text()) for path in jobs.glob("*.pid")}
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _parent, group = entry.read_text().rpartition(")")[2].split()[:3]
            if int(group) in groups and state != "Z":
                found.append(int(group))
    return found


@pytest.mark.cluster
def test_the_words_of_a_refusing_sbatch_are_shown(
    slurm: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_connection, "_CHECK_S", 0.5)
    slurm("#!/bin/sh\necho 'invalid account or partition' >&2\nexit 1\n")
    options = ClusterOptions(kind="slurm", slurm=slurm_options(tmp_path))
    with pytest.raises(StorageError, match=r"R817.*invalid account or partition") as caught:
        run(tmp_path / "root", DaskExecutor(2, GIGABYTE, cluster=options))
    assert caught.value.exit_code == 4
    assert list((tmp_path / "shared").iterdir()) == []


def test_a_machine_without_slurm_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StorageError, match=r"R816.*sbatch"):
        SlurmWorkers(SlurmOptions(shared_directory=str(tmp_path)), 1, GIGABYTE)
    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
    with pytest.raises(StorageError, match=r"R816.*pip install 'bperp\[slurm\]'"):
        SlurmWorkers(SlurmOptions(shared_directory=str(tmp_path)), 1, GIGABYTE)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_blanks_cannot_stand_in_a_job_script(tmp_path: Path) -> None:
    blank = tmp_path / "my folder"
    blank.mkdir()
    with pytest.raises(ConfigurationError, match=r"C104 .*my folder"):
        SlurmWorkers(SlurmOptions(shared_directory=str(blank)), 1, GIGABYTE)


# --- Kubernetes ------------------------------------------------------------------------------

PODS = KubernetesOptions(
    namespace="insar",
    image="registry/bperp:1.0",
    certificates="bperp-tls",
    environment="object-store",
    service_account="runner",
    volume_claim="products",
    volume_path="/data",
)


def closed(schema: Any) -> Any:
    """Refuse unknown fields, which Kubernetes would silently drop."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: closed(item) for name, item in schema.items()}
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made["additionalProperties"] = False
    return made


@pytest.fixture(scope="module")
def operator_schema() -> Any:
    """What the operator accepts as a cluster, and nothing else."""
    import dask_kubernetes

    folder = Path(dask_kubernetes.__file__).parent / "operator" / "deployment" / "helm"
    with (folder / "dask-kubernetes-operator" / "crds" / "daskcluster.yaml").open() as stream:
        (version,) = yaml.load(stream, yaml.CSafeLoader)["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    # The server itself adds these to every resource.
    for name in ("apiVersion", "kind", "metadata"):
        schema["properties"][name] = {}
    import jsonschema

    return jsonschema.Draft202012Validator(closed(schema))


@pytest.mark.parametrize(
    "options", [PODS, KubernetesOptions(image="bperp", certificates="bperp-tls")]
)
def test_the_resource_fits_the_definition_of_the_operator(
    operator_schema: Any, options: KubernetesOptions
) -> None:
    resource = cluster_resource("bperp-1", options, 3, GIGABYTE)
    assert json.loads(json.dumps(resource)) == resource
    assert [fault.message for fault in operator_schema.iter_errors(resource)] == []
    resource["spec"]["worker"]["spec"]["containers"][0]["memory"] = 1
    (fault,) = operator_schema.iter_errors(resource)
    assert "'memory' was unexpected" in fault.message


def test_pods_have_limits_certificates_and_no_dashboard() -> None:
    resource = cluster_resource("bperp-1", PODS, 3, GIGABYTE)
    assert resource["metadata"]["namespace"] == "insar"
    assert resource["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "bperp"}
    spec = resource["spec"]
    assert spec["worker"]["replicas"] == 3
    assert [port["name"] for port in spec["scheduler"]["service"]["ports"]] == ["tcp-comm"]
    for part in (spec["worker"], spec["scheduler"]):
        pod, (container,) = part["spec"], part["spec"]["containers"]
        assert pod["serviceAccountName"] == "runner"
        assert {"name": "certificates", "secret": {"secretName": "bperp-tls"}} in pod["volumes"]
        assert container["image"] == "registry/bperp:1.0"
        assert container["resources"]["limits"] == container["resources"]["requests"]
        assert container["envFrom"] == [{"secretRef": {"name": "object-store"}}]
        assert {m["mountPath"] for m in container["volumeMounts"]} == {"/etc/bperp/tls", "/data"}
        environment = {item["name"]: item["value"] for item in container["env"]}
        assert environment["DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION"] == "True"
        assert "--no-dashboard" in container["args"]
    (worker,) = spec["worker"]["spec"]["containers"]
    assert worker["resources"]["limits"] == {"cpu": "1", "memory": "1300000000"}
    environment = {item["name"]: item["value"] for item in worker["env"]}
    assert environment["DASK_SCHEDULER_ADDRESS"] == "tls://bperp-1-scheduler.insar.svc:8786"
    assert environment["NUMBA_NUM_THREADS"] == "1"


def as_here(container: dict[str, Any], mount: Path, ports: dict[str, str]) -> list[str]:
    """Return the command of a container, with its paths and ports replaced by those of here."""
    changes = {"/etc/bperp/tls": str(mount), "$(DASK_WORKER_NAME)": "w", "0.0.0.0": "127.0.0.1"}
    words = [*container["command"], *container["args"]]
    for old, new in {**changes, **ports}.items():
        words = [word.replace(old, new) for word in words]
    assert words[0] == "dask"
    return words[1:]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.mark.cluster
@pytest.mark.slow
def test_the_commands_of_the_pods_form_a_cluster(processes: Processes, tmp_path: Path) -> None:
    from urllib.error import HTTPError
    from urllib.request import urlopen

    certificates = authority(tmp_path)
    own, ports = certificates["cluster"], {"8786": str(free_port()), "8787": str(free_port())}
    for path, name in zip(
        (own.authority, own.certificate, own.key), ("ca.crt", "tls.crt", "tls.key"), strict=True
    ):
        shutil.copy(path, tmp_path / name)
    resource = cluster_resource("bperp-1", PODS, 1, GIGABYTE)
    address = f"tls://127.0.0.1:{ports['8786']}"
    for part in ("scheduler", "worker"):
        (container,) = resource["spec"][part]["spec"]["containers"]
        environment = {item["name"]: item["value"] for item in container["env"]}
        if part == "worker":
            environment["DASK_SCHEDULER_ADDRESS"] = address
        processes.start(*as_here(container, tmp_path, ports), **environment)
    executor = DaskExecutor(address=str(Endpoint(address, certificates["user"])), patience_s=60)
    pages = f"http://127.0.0.1:{ports['8787']}"

    def is_healthy() -> bool:
        with contextlib.suppress(OSError), urlopen(f"{pages}/health") as answer:
            return bool(answer.status == 200)
        return False

    wait_for(is_healthy)
    for page in ("status", "info/main/workers.html", "api/v1/retire_workers", "metrics"):
        with pytest.raises(HTTPError, match="404"):
            urlopen(f"{pages}/{page}")
    assert executor.memory_limit_bytes == GIGABYTE
    assert run_selfcheck(str(tmp_path / "root"), executor)["wrong"] == 0


class Server(http.server.ThreadingHTTPServer):
    """Answers like the server of Kubernetes, as far as one run asks it."""

    def __init__(self, scheduler_port: int, refusal: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.scheduler_port, self.refusal = scheduler_port, refusal
        self.seen: list[tuple[str, str, Any]] = []
        self.name = ""


class Answers(http.server.BaseHTTPRequestHandler):
    """Versions, one resource, one service, one ready pod."""

    server: Server

    def log_message(self, *_: Any) -> None:
        """Keep the output of the tests clean."""

    def answer(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        self.server.seen.append(("GET", path, query))
        kinds = [
            {"name": "services", "kind": "Service", "singularName": "service", "namespaced": True},
            {"name": "pods", "kind": "Pod", "singularName": "pod", "namespaced": True},
        ]
        what_it_offers = {
            "/version": {"gitVersion": "v1.33.0"},
            "/api": {"versions": ["v1"]},
            "/api/v1": {"groupVersion": "v1", "resources": kinds},
            "/apis": {"groups": []},
        }
        if path.rstrip("/") in what_it_offers:
            return self.answer(200, what_it_offers[path.rstrip("/")])
        metadata = {"name": f"{self.server.name}-scheduler", "namespace": "insar"}
        port = {"name": "tcp-comm", "port": self.server.scheduler_port}
        spec = {"clusterIP": "127.0.0.1", "ports": [port], "selector": {"a": "b"}}
        condition = {"type": "Ready", "status": "True"}
        pod = {"metadata": metadata, "status": {"conditions": [condition]}}
        condition = {"type": "ContainersReady", "status": "True"}
        pod["status"]["conditions"].append(condition)  # type: ignore[index]
        found = {"services": {"metadata": metadata, "spec": spec}, "pods": pod}
        kind = next((name for name in found if f"/{name}" in path), None)
        if kind is None:
            return self.answer(404, {"message": "not found"})
        is_list = path.endswith(f"/{kind}")
        return self.answer(200, {"items": [found[kind]]} if is_list else found[kind])

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append(("POST", self.path, body))
        self.server.name = body["metadata"]["name"]
        if self.server.refusal:
            return self.answer(self.server.refusal, {"message": "daskclusters is forbidden"})
        return self.answer(201, body)

    def do_DELETE(self) -> None:
        self.server.seen.append(("DELETE", self.path, None))
        self.answer(200, {})


@contextlib.contextmanager
def api_server(
    folder: Path, monkeypatch: pytest.MonkeyPatch, scheduler_port: int, refusal: int = 0
) -> Iterator[Server]:
    server = Server(scheduler_port, refusal)
    url = f"http://127.0.0.1:{server.server_address[1]}"
    place = {"cluster": {"server": url}, "name": "here"}
    context = {"context": {"cluster": "here", "user": "me"}, "name": "here"}
    text = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [place],
        "contexts": [context],
        "users": [{"name": "me", "user": {"token": "none"}}],
        "current-context": "here",
    }
    (folder / "kubeconfig").write_text(yaml.safe_dump(text))
    monkeypatch.setenv("KUBECONFIG", str(folder / "kubeconfig"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def kubernetes_cluster(tls: TlsFiles, pods: KubernetesOptions = PODS) -> ClusterOptions:
    return ClusterOptions(
        kind="kubernetes",
        tls_ca=tls.authority,
        tls_certificate=tls.certificate,
        tls_key=tls.key,
        kubernetes=pods,
        patience_s=20,
    )


@pytest.mark.cluster
@pytest.mark.slow
def test_the_resource_is_made_used_and_removed(
    secured: tuple[str, TlsFiles], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = int(secured[0].rpartition(":")[2])
    with api_server(tmp_path, monkeypatch, port) as server:
        executor = DaskExecutor(2, GIGABYTE, cluster=kubernetes_cluster(secured[1]))
        assert run_selfcheck(str(tmp_path / "root"), executor)["wrong"] == 0
    made = [(verb, path) for verb, path, _ in server.seen if verb != "GET"]
    where = "/apis/kubernetes.dask.org/v1/namespaces/insar/daskclusters"
    assert made == [("POST", where), ("DELETE", f"{where}/{server.name}")]
    (resource,) = (body for verb, _, body in server.seen if verb == "POST")
    assert resource == cluster_resource(server.name, PODS, 2, GIGABYTE)
    assert {what_was_asked(*request) for request in server.seen} - {None} <= rights()


def what_was_asked(verb: str, path: str, _: Any) -> tuple[str, str] | None:
    """Return resource and verb of a request, as rights name them."""
    found = re.fullmatch(r"/apis?/.*/namespaces/insar/(\w+)(/.+)?", path)
    if found is None:
        return None  # versions and kinds, which everybody may ask for
    reading = "get" if found[2] else "list"
    return found[1], {"GET": reading, "POST": "create", "DELETE": "delete"}[verb]


def rights() -> set[tuple[str, str]]:
    text = (REPOSITORY / "deploy" / "k8s" / "rights.yaml").read_text(encoding="utf-8")
    role, _binding = yaml.safe_load_all(text)
    return {
        (resource, verb)
        for rule in role["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_a_refusing_kubernetes_is_r817(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tls = TlsFiles(*(str(tmp_path / name) for name in "abc"))
    # Another namespace, because kr8s remembers the server of the first.
    pods = KubernetesOptions(namespace="other", image="bperp", certificates="bperp-tls")
    with api_server(tmp_path, monkeypatch, 1, refusal=422):
        executor = DaskExecutor(2, GIGABYTE, cluster=kubernetes_cluster(tls, pods))
        with pytest.raises(StorageError, match=r"R817.*daskclusters is forbidden"):
            run(tmp_path / "root", executor)
    monkeypatch.setitem(sys.modules, "kr8s", None)
    with pytest.raises(StorageError, match=r"R816.*pip install 'bperp\[kubernetes\]'"):
        run(tmp_path / "root", executor)


def test_ctrl_c_stays_ours_when_the_library_of_slurm_is_loaded() -> None:
    program = """if True:
        import signal
        from bperp.flows.interruption import handlers_kept
        before = signal.getsignal(signal.SIGINT)
        with handlers_kept():
            import dask_jobqueue
            assert signal.getsignal(signal.SIGINT) is not before, "nothing to protect from any more"
        assert signal.getsignal(signal.SIGINT) is before
    """
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
