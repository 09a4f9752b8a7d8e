"""Every kind of store keeps the same contract; which client library serves it changes nothing."""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import zarr
from fault_proxy import Rates, fault_proxy
from lenient_endpoint import lenient_endpoint
from moto_endpoint import Endpoint, exported
from zarr.core.buffer import default_buffer_prototype

from bperp.stores import patience, probe, store_choice
from bperp.stores.errors import ConfigurationError, NetworkError, SecurityError, StorageError
from bperp.stores.objects import (
    ObjectStore,
    open_objects,
    require_exclusive_create,
    without_credentials,
)
from bperp.stores.patience import Spell, network_patience_s
from bperp.stores.storage_faults import LastingFaultError
from bperp.stores.store_choice import choose_store
from bperp.stores.strict import open_strict_store

LIBRARIES = ("fsspec", "obstore")
NAMES = ("receipts/a b/c%2Fd.0123.json", "receipts/k=v+w", "markers/ünï.json", "markers/a:b#c&d")


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(store_choice.CHOICE_VARIABLE, request.param)
    return request.param


# The contract ------------------------------------------------------------------------------------


class StoreContract:
    """What ``ObjectStore`` and the Zarr store of the same root promise."""

    @pytest.fixture
    def root(self) -> str:
        raise NotImplementedError

    @pytest.fixture
    def objects(self, root: str) -> ObjectStore:
        return open_objects(root)

    def test_an_object_is_created_once_replaced_read_and_removed(self, objects):
        assert objects.read("a/b") is None
        assert objects.create("a/b", b"1")
        assert not objects.create("a/b", b"2")
        assert objects.read("a/b") == b"1"
        objects.write("a/b", b"")
        assert objects.read("a/b") == b""
        objects.remove("a/b")
        objects.remove("a/b")
        assert objects.read("a/b") is None

    def test_names_are_taken_as_they_are(self, objects):
        for name in NAMES:
            assert objects.create(name, name.encode())
        assert objects.names("") == sorted(NAMES)
        assert [objects.read(name) for name in NAMES] == [name.encode() for name in NAMES]
        objects.copy(NAMES[0], NAMES[2])
        assert objects.read(NAMES[2]) == NAMES[0].encode()
        for name in NAMES:
            objects.remove(name)
        assert objects.names("") == []

    def test_folders_end_at_a_slash(self, objects):
        for name in ("p/x", "p/q/y", "p/q/r/z", "pq/x", "top"):
            objects.write(name, b"1")
        assert objects.names("p") == ["p/q/r/z", "p/q/y", "p/x"]
        assert objects.names("p/x") == []
        assert objects.names("nowhere") == []
        assert objects.children("") == ["p", "pq"]
        assert objects.children("p") == ["q"]
        assert objects.children("nowhere") == []
        objects.remove_tree("p")
        objects.remove_tree("p")
        assert objects.names("") == ["pq/x", "top"]

    def test_a_copy_is_whole_and_its_source_must_exist(self, objects):
        data = bytes(range(256)) * 5000
        objects.write("chunk", data)
        objects.write("target", b"old")
        objects.copy("chunk", "target")
        assert objects.read("target") == data == objects.read("chunk")
        with pytest.raises(StorageError, match="R802 nothing"):
            objects.copy("nothing", "target")
        assert objects.names("") == ["chunk", "target"]

    def test_times_are_of_one_clock(self, objects):
        assert objects.modified("x") is None
        before = time.time()
        objects.write("x", b"1")
        assert before - 2.0 <= objects.modified("x") <= time.time() + 2.0

    def test_the_store_passes_its_own_probe(self, objects):
        require_exclusive_create(objects)
        assert objects.names("") == []

    def test_names_stay_below_the_root(self, objects):
        for name in ("../x", "a/../../x", "/etc/passwd"):
            with pytest.raises(ValueError, match="below the root"):
                objects.write(name, b"")

    def test_chunks_go_to_the_same_place_and_must_exist(self, root, objects):
        store = open_strict_store(root, {})
        array = zarr.create_array(
            store, name="p/x", shape=(4, 6), chunks=(2, 3), dtype="i2", fill_value=-1
        )
        array[...] = np.arange(24).reshape(4, 6)
        assert set(objects.children("p")) == {"x"}
        assert "p/x/c/1/1" in objects.names("p")
        again = zarr.open_array(open_strict_store(root, {}), path="p/x", mode="r+")
        np.testing.assert_array_equal(again[...], np.arange(24).reshape(4, 6))
        objects.remove("p/x/c/1/0")
        with pytest.raises(StorageError, match="R802"):
            again[...]
        np.testing.assert_array_equal(again[:2], np.arange(12).reshape(2, 6))

    def test_parts_of_chunks_are_read(self, root, objects):
        from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest

        objects.write("p/c/0", bytes(range(100)))
        store, prototype = open_strict_store(root, {}), default_buffer_prototype()

        def get(part):
            return zarr.core.sync.sync(store.get("p/c/0", prototype, part)).to_bytes()

        assert get(SuffixByteRequest(3)) == bytes([97, 98, 99])
        assert get(OffsetByteRequest(95)) == bytes(range(95, 100))
        assert get(RangeByteRequest(10, 12)) == bytes([10, 11])


class TestLocal(StoreContract):
    @pytest.fixture
    def root(self, tmp_path: Path) -> str:
        return str(tmp_path / "run")


class TestMemory(StoreContract):
    @pytest.fixture
    def root(self, tmp_path: Path) -> Iterator[str]:
        root = f"memory://{tmp_path.name}"
        yield root
        open_objects(root).remove_tree("")


@pytest.mark.usefixtures("library")
class TestS3(StoreContract):
    @pytest.fixture
    def root(self, s3: Endpoint) -> str:
        return f"{s3.root}/some/prefix"


@pytest.mark.slow
@pytest.mark.usefixtures("library")
class TestS3WholeBucket(StoreContract):
    @pytest.fixture
    def root(self, s3: Endpoint) -> str:
        return s3.root


# Many objects, many writers ----------------------------------------------------------------------


@pytest.mark.slow
def test_a_listing_is_complete_beyond_one_page(s3, monkeypatch):
    with s3.session() as client:
        for index in range(1005):
            client.put_object(Bucket=s3.bucket, Key=f"receipts/many/{index:04d}", Body=b"")
    for library in LIBRARIES:
        monkeypatch.setenv(store_choice.CHOICE_VARIABLE, library)
        names = open_objects(s3.root).names("receipts")
        assert len(names) == 1005
        assert names[-1] == "receipts/many/1004"
    objects = open_objects(s3.root)
    objects.remove_tree("receipts")
    assert objects.names("") == []


def test_of_several_writers_one_creates(s3, library):
    stores = [open_objects(s3.root) for _ in range(8)]
    for store in stores:
        store.read("warm")
    gate = threading.Barrier(len(stores))

    def race(number: int) -> bool:
        gate.wait(60)
        return stores[number].create("marker", f"{number}".encode())

    for turn in range(5):
        with ThreadPoolExecutor(len(stores)) as pool:
            winners = [i for i, won in enumerate(pool.map(race, range(len(stores)))) if won]
        assert len(winners) == 1, turn
        assert stores[0].read("marker") == f"{winners[0]}".encode()
        stores[0].remove("marker")


# Which library -----------------------------------------------------------------------------------


def test_obstore_is_taken_where_it_does_the_same(s3, monkeypatch):
    assert choose_store(s3.root).library == "obstore"
    assert choose_store("memory://x").library == "fsspec"
    assert choose_store(s3.root, {"profile": "x"}).library == "fsspec"
    monkeypatch.setenv("AWS_USE_FIPS_ENDPOINT", "true")
    assert choose_store(s3.root).library == "fsspec"


def test_without_a_region_only_botocore_finds_the_bucket(monkeypatch, s3):
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    assert choose_store(s3.root).library == "obstore"
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    assert choose_store(s3.root).library == "fsspec"


@pytest.mark.parametrize(("word", "code"), [("minio", "C102"), ("obstore", "C102")])
def test_a_choice_that_cannot_be_followed_is_refused(monkeypatch, word, code):
    monkeypatch.setenv(store_choice.CHOICE_VARIABLE, word)
    with pytest.raises(ConfigurationError, match=code):
        choose_store("s3://bucket", {"anon": True})


@pytest.mark.parametrize("root", ["ftp://host/x", "hdfs://host/x", "sftp://host/x"])
def test_other_urls_are_refused(root):
    with pytest.raises(ConfigurationError, match="C104"):
        open_objects(root)


@pytest.mark.parametrize(
    ("root", "package", "extra"),
    [("gs://b/x", "gcsfs", "gcs"), ("az://b/x", "adlfs", "azure"), ("s3://b", "s3fs", "fast-s3")],
)
def test_a_missing_package_is_named_with_its_extra(monkeypatch, root, package, extra):
    absent = {package, "obstore"}
    real = store_choice.importlib.util.find_spec
    monkeypatch.setattr(
        store_choice.importlib.util, "find_spec", lambda n: None if n in absent else real(n)
    )
    with pytest.raises(ConfigurationError, match=rf"C104.*{package}.*bperp\[{extra}\]"):
        open_objects(root)


PROFILE = """[profile cluster]
region = eu-west-1
aws_access_key_id = AKIAPROFILE0000000001
aws_secret_access_key = of-the-profile
"""


def test_credentials_come_from_a_profile_alike(s3, library, tmp_path, monkeypatch):
    (tmp_path / "config").write_text(PROFILE)
    with recorder() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        monkeypatch.delenv("AWS_DEFAULT_REGION")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        monkeypatch.setenv("AWS_PROFILE", "cluster")
        assert choose_store(s3.root).library == library
        open_objects(s3.root).write("x", b"1")
    (_, _, headers, _) = server.requests[0]
    assert "Credential=AKIAPROFILE0000000001/" in headers["Authorization"]
    assert "/eu-west-1/s3/" in headers["Authorization"]


def test_nobody_s_credentials_are_an_error_of_one_line(s3, library, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StorageError, match=r"R807.*credentials.*AWS_PROFILE"):
        open_objects(s3.root).read("x")


def test_a_profile_that_does_not_exist_is_an_error_of_one_line(s3, library, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "misspelt")
    with pytest.raises(StorageError, match=r"R807"):
        open_objects(s3.root).read("x")


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_the_endpoint_comes_from_the_environment(s3, library, monkeypatch, name):
    monkeypatch.delenv("AWS_DEFAULT_REGION")  # the address is enough for a private store
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv(name, s3.url)
    assert choose_store(s3.root).library == library
    open_objects(s3.root).write("x", b"1")
    with s3.session() as client:
        assert client.get_object(Bucket=s3.bucket, Key="x")["Body"].read() == b"1"


def test_an_endpoint_with_a_name_is_addressed_by_path(s3, library, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.url.replace("127.0.0.1", "localhost"))
    objects = open_objects(s3.root)
    objects.write("x", b"1")
    assert objects.read("x") == b"1"


# Google and Azure, as far as it goes without them ------------------------------------------------


class Recorder(http.server.BaseHTTPRequestHandler):
    """Accepts everything and remembers what came."""

    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        entry = (self.command, self.path, self.headers, body)
        self.server.requests.append(entry)
        self.send_response(201 if "comp" in self.path or "x-ms-version" in self.headers else 200)
        self.send_header("ETag", '"1"')
        self.send_header("x-goog-generation", "1")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class recorder:  # noqa: N801
    """Context manager of a recording server."""

    def __enter__(self):
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
        self.server.requests = self.requests = []
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def test_google_gets_a_generation_that_must_not_exist(tmp_path, monkeypatch):
    with recorder() as server:
        key = {"gcs_base_url": server.url, "disable_oauth": True}
        key |= {"client_email": "", "private_key": "", "private_key_id": ""}
        (tmp_path / "key.json").write_text(json.dumps(key))
        monkeypatch.setenv("GOOGLE_ALLOW_HTTP", "true")
        monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(tmp_path / "key.json"))
        choice = choose_store("gs://bucket/run")
        assert choice.library == "obstore"
        assert type(choice.open_obstore()).__name__ == "GCSStore"
        assert open_objects("gs://bucket/run").create("run.lock", b"1")
    ((_, path, headers, body),) = server.requests
    assert unquote(path.split("?")[0]) == "/bucket/run/run.lock"
    assert headers["x-goog-if-generation-match"] == "0"
    assert body == b"1"


def test_azure_gets_a_condition_that_nothing_exists(monkeypatch):
    with recorder() as server:
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "a2V5")
        monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", server.url)
        monkeypatch.setenv("AZURE_ALLOW_HTTP", "true")
        choice = choose_store("az://container/run")
        assert choice.library == "obstore"
        assert type(choice.open_obstore()).__name__ == "AzureStore"
        assert open_objects("az://container/run").create("run.lock", b"1")
    ((_, path, headers, body),) = server.requests
    assert path.split("?")[0].endswith("/container/run/run.lock")
    assert headers["If-None-Match"] == "*"
    assert body == b"1"


# Stores that are not fit -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flaw", "code"),
    [
        ("ignores If-None-Match", "R814"),
        ("gives the beginning for the end", "R820.*bytes -12 to the end"),
        ("ignores ranges", "R820.*bytes -12 to the end"),
        ("shows old objects", "R820.*written anew"),
        ("lists nothing", "R820.*listing"),
    ],
)
def test_an_unfit_store_is_refused(s3, library, monkeypatch, flaw, code):
    monkeypatch.setattr(probe, "LISTING_LAG_S", 1.0)
    with (
        lenient_endpoint(s3.url, flaw) as url,
        exported(s3.through(url).environment),
        pytest.raises(NetworkError, match=code),
    ):
        require_exclusive_create(open_objects(s3.root))


@pytest.mark.slow
def test_a_listing_may_lag_behind(s3, library):
    with fault_proxy(s3.url) as proxy, exported(s3.through(proxy.url).environment):
        proxy.hide_s = 2.0
        require_exclusive_create(open_objects(s3.root))
        assert proxy.count("GET", "list-type") > 2


def test_the_probe_takes_few_requests_and_leaves_nothing(s3, library):
    with fault_proxy(s3.url) as proxy, exported(s3.through(proxy.url).environment):
        objects = open_objects(s3.root)
        require_exclusive_create(objects)
        assert len(proxy.requests) <= 10
        assert objects.names("") == []


# Faults ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        ((403, "AccessDenied"), "refuses access"),
        ((403, "InvalidAccessKeyId"), "refuses access"),
        ((401, "Unauthorized"), "refuses access"),
        ((403, "ExpiredToken"), "have expired"),
        ((400, "ExpiredToken"), "have expired"),
        ((403, "RequestTimeTooSkewed"), "clock"),
        ((404, "NoSuchBucket"), "bucket does not exist"),
    ],
)
def test_refusals_are_told_at_once_and_in_words(s3, library, answer, cause):
    with fault_proxy(s3.url) as proxy, exported(s3.through(proxy.url).environment):
        objects = open_objects(s3.root)
        proxy.denied = answer
        for operation in (objects.read, objects.names, lambda name: objects.create(name, b"")):
            with pytest.raises(StorageError, match=rf"R807.*{cause}.*{answer[1]}"):
                operation("x")
        assert len(proxy.requests) <= 6


def test_a_bucket_of_another_region_is_told(s3, monkeypatch):
    monkeypatch.setenv(store_choice.CHOICE_VARIABLE, "obstore")  # botocore looks for the region
    with fault_proxy(s3.url) as proxy, exported(s3.through(proxy.url).environment):
        proxy.denied = (301, "PermanentRedirect")
        with pytest.raises(StorageError, match=r"R807.*another region.*AWS_DEFAULT_REGION"):
            open_objects(s3.root).read("x")


def test_a_missing_bucket_is_not_an_empty_one(s3, library):
    objects = open_objects("s3://no-such-bucket-of-bperp/run")
    for operation in (objects.read, objects.names, objects.children):
        with pytest.raises(StorageError, match=r"R807.*bucket does not exist"):
            operation("x")
    with pytest.raises(StorageError, match=r"R807.*bucket does not exist"):
        objects.copy("x", "y")


ALL_AT_ONCE = Rates(slow_down=0.3, reset=0.1, truncate=0.1, wrong_etag=0.1, lost_answer=0.05)


def test_everything_still_holds_when_the_network_is_bad(s3, library, monkeypatch):
    monkeypatch.setenv("BPERP_NETWORK_PATIENCE_S", "60")
    monkeypatch.setattr(patience, "_FIRST_PAUSE_S", 0.02)
    with fault_proxy(s3.url, seed=3) as proxy, exported(s3.through(proxy.url).environment):
        proxy.rates = ALL_AT_ONCE
        objects = open_objects(s3.root)
        created = [objects.create(f"a/{i}", f"{i}".encode() * 50) for i in range(10)]
        again = [objects.create(f"a/{i}", b"other") for i in range(10)]
        read = [objects.read(f"a/{i}") for i in range(10)]
        listed = objects.names("a")
        assert proxy.count(status=503) > 5
        assert proxy.count(status=0) > 2
    assert created == [True] * 10
    assert again == [False] * 10
    assert read == [f"{i}".encode() * 50 for i in range(10)]
    assert len(listed) == 10


def test_a_create_whose_answer_was_lost_counts(s3, library):
    with fault_proxy(s3.url) as proxy, exported(s3.through(proxy.url).environment):
        objects = open_objects(s3.root)
        proxy.rates, proxy.left = Rates(lost_answer=1.0), 1
        assert objects.create("lock", b"mine")
        assert proxy.left < 0 < proxy.count("PUT")
        proxy.left = 1
        assert not objects.create("lock", b"of another")
        assert objects.read("lock") == b"mine"


def test_a_refused_create_is_not_mine_even_with_the_same_bytes(s3, monkeypatch):
    monkeypatch.setenv(store_choice.CHOICE_VARIABLE, "obstore")  # s3fs does not tell
    open_objects(s3.root).write("x", b"same")
    with fault_proxy(s3.url) as proxy, exported(s3.through(proxy.url).environment):
        objects = open_objects(s3.root)
        proxy.rates, proxy.left = Rates(slow_down=1.0), 2
        assert not objects.create("x", b"same")
        assert proxy.left < 0


def test_an_outage_ends_the_patience_with_one_line(s3, library, monkeypatch):
    with fault_proxy(s3.url) as proxy, exported(s3.through(proxy.url).environment):
        objects = open_objects(s3.root)
        objects.write("x", b"1")
        proxy.down = True
        monkeypatch.setenv("BPERP_NETWORK_PATIENCE_S", "1.5")
        started = time.monotonic()
        with pytest.raises(NetworkError, match=r"R810 x: .*within 1.5 s") as caught:
            objects.read("x")
        assert time.monotonic() - started > 1.4
        assert str(caught.value).count("\n") == 0
        threading.Timer(0.5, setattr, (proxy, "down", False)).start()
        assert objects.read("x") == b"1"


def test_a_flipped_bit_in_a_small_object_is_noticed(s3, monkeypatch):
    monkeypatch.setenv(store_choice.CHOICE_VARIABLE, "obstore")
    open_objects(s3.root).write("receipt", b"0123456789" * 20)
    with (
        fault_proxy(s3.url, seed=1, flip=0.3) as proxy,
        exported(s3.through(proxy.url).environment),
    ):
        objects = open_objects(s3.root)
        read = {objects.read("receipt") for _ in range(12)}
        assert proxy.count("GET") > 12
    assert read == {b"0123456789" * 20}


def test_a_program_fault_is_not_waited_for(s3, library):
    objects = open_objects(s3.root)
    started = time.monotonic()
    with pytest.raises(NetworkError, match="R810"):
        objects.write("x", 5)
    assert time.monotonic() - started < 2.0


def test_pauses_grow_differ_and_end():
    def pauses() -> list[float]:
        spell = Spell(1000.0)
        return [spell.pause_s(OSError()) for _ in range(12)]

    first, second = pauses(), pauses()
    assert first != second
    for index, pause in enumerate(first):
        longest = min(0.1 * 2**index, 10.0)
        assert 0.5 * longest <= pause <= longest
    assert Spell(0.0).pause_s(OSError()) is None


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), LastingFaultError("R810", "", remedy="")])
def test_a_program_that_is_ending_does_not_wait_for_its_last_words(fault):
    patiences = []

    def end() -> None:
        try:
            raise fault
        finally:
            patiences.extend([Spell(300.0).patience_s, Spell(1.0).patience_s])

    with pytest.raises(type(fault)):
        end()
    assert [*patiences, Spell(300.0).patience_s] == [2.0, 1.0, 300.0]


def test_waiting_leaves_the_programs_random_numbers_alone():
    import random

    random.seed(1)
    expected = random.random()
    random.seed(1)
    Spell(10.0).pause_s(OSError())
    assert random.random() == expected


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf"])
def test_patience_is_a_number_of_seconds(monkeypatch, text):
    monkeypatch.setenv("BPERP_NETWORK_PATIENCE_S", text)
    with pytest.raises(ConfigurationError, match="C102"):
        network_patience_s()


# What must not be shown --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "root",
    [
        "s3://AKIAX:hunter2@bucket/run",
        "s3://hunter2@bucket/run",
        "s3://bucket/run?X-Amz-Signature=hunter2",
        "gs://user:hunter2@bucket/run",
        "az://user:hunter2@container/run",
        "https://user:hunter2@host/cube",
    ],
)
def test_a_root_with_credentials_is_refused_without_repeating_them(root):
    with pytest.raises(SecurityError, match="X907") as caught:
        open_objects(root)
    assert "hunter2" not in str(caught.value)


def test_an_endpoint_with_a_password_is_refused_without_repeating_it(s3, library, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://user:hunter2@127.0.0.1:9")
    with pytest.raises(SecurityError, match="X907") as caught:
        open_objects(s3.root)
    assert "hunter2" not in str(caught.value)


def test_a_body_cut_short_is_told_as_such(s3, library, monkeypatch):
    open_objects(s3.root).write("x", b"0123456789")
    monkeypatch.setenv("BPERP_NETWORK_PATIENCE_S", "0")
    with fault_proxy(s3.url, truncate=1.0) as proxy, exported(s3.through(proxy.url).environment):
        objects = open_objects(s3.root)
        with pytest.raises(
            NetworkError, match=r"R810 x:.*found (ClientPayload|Generic)Error: .*body|not completed"
        ):
            objects.read("x")


def test_secrets_of_the_environment_leave_any_text(monkeypatch):
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a-token-of-some-length")
    assert "a-token" not in without_credentials("denied: a-token-of-some-length is not known")


def test_plain_http_to_another_machine_needs_consent(s3, library, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://192.0.2.1:9000")
    with pytest.raises(SecurityError, match=r"X909.*http://192.0.2.1:9000.*AWS_ALLOW_HTTP"):
        open_objects(s3.root)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    open_objects(s3.root)


def test_a_web_server_is_read_encrypted_or_on_this_machine():
    with pytest.raises(SecurityError, match="X909"):
        open_objects("http://192.0.2.1/cube")
    open_objects("http://127.0.0.1:9/cube")
    open_objects("https://192.0.2.1/cube")


def test_importing_the_stores_loads_neither_library():
    code = (
        "import sys, bperp.stores.objects\n"
        "print(sorted({'s3fs', 'obstore', 'botocore', 'gcsfs'} & set(sys.modules)))"
    )

    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
