import json
import os
import shutil

import numpy as np
import openvino as ov
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dermafuse
from dermafuse.data.images import PREPROCESSING_VERSION
from dermafuse.errors import BundleError, OutputError
from dermafuse.files import sha256, write_json
from dermafuse.labels import HAM10000, LabelSet
from dermafuse.runtime.bundle.files import MANIFEST
from dermafuse.runtime.bundle.folder import OutOfDistribution, PredictionSets, read_bundle, write_bundle
from tiny_bundle import CHANNELS, tiny_bundle, tiny_content, tiny_image, tiny_network

JSON_FILES = ("manifest.json", "preprocessing.json", "calibration.json", "labels.json")


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return tiny_bundle(tmp_path_factory.mktemp("bundle") / "model")


@pytest.fixture
def bundle(original, tmp_path):
    return shutil.copytree(original, tmp_path / "model")


def edit(folder, name, change, *, reseal=True):
    """Change a JSON file in place; ``reseal`` makes the manifest agree with it, as a forger would."""
    value = json.loads((folder / name).read_text())
    change(value)
    (folder / name).write_text(json.dumps(value))
    if reseal and name != MANIFEST:
        seal(folder, name)


def seal(folder, name):
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][name] = {"sha256": sha256(folder / name), "bytes": (folder / name).stat().st_size}
    write_json(folder / MANIFEST, manifest)


def refused(folder, *words):
    with pytest.raises(BundleError) as caught:
        read_bundle(folder)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


def test_what_was_written_is_read_back(tmp_path):
    content = tiny_content(
        offsets=(0.1,) * 7,
        prediction_set=PredictionSets(coverage=0.9, minimum_probability=[0.05] * 7),
        info={"recipe": "test", "synthetic": True, "nested": {"a": [1, None]}},
        card="# Über\n",
    )
    write_bundle(tmp_path / "m", content)
    found = read_bundle(tmp_path / "m")
    assert found.classes == HAM10000.codes
    assert found.names == HAM10000.names
    assert found.malignant == HAM10000.malignant
    assert (found.temperature, found.offsets) == (1.3, (0.1,) * 7)
    assert (found.prediction_set, found.ood) == (content.prediction_set, content.ood)
    assert found.encoder == content.encoder
    assert (found.info, found.card, found.version) == (content.info, "# Über\n", dermafuse.__version__)
    assert found.head.keys() == content.head.keys()
    np.testing.assert_array_equal(found.head["baseline/embedding"], content.head["baseline/embedding"])
    assert found.digest == sha256(tmp_path / "m" / MANIFEST)


def test_nothing_in_a_bundle_is_executable(bundle):
    assert {path.suffix for path in bundle.iterdir()} == {".json", ".xml", ".bin", ".safetensors", ".md"}
    assert not any(os.access(path, os.X_OK) for path in bundle.iterdir())


def test_a_run_folder_leads_to_its_bundle(bundle):
    assert read_bundle(bundle.parent).path == bundle


def test_an_ensemble_keeps_its_members_apart(tmp_path):
    head = {f"model-{n}/baseline/embedding": np.full(CHANNELS, n, np.float32) for n in (1, 2)}
    found = read_bundle(tiny_bundle(tmp_path / "m", members=2, head=head))
    assert len(found.models) == 2
    assert found.member_head(1)["baseline/embedding"][0] == 2


def test_half_weights_halve_the_file_and_hardly_change_the_answer(tmp_path):
    for half in (False, True):
        write_bundle(tmp_path / str(half), tiny_content(), half_weights=half)
    sizes = [(tmp_path / str(half) / "model.bin").stat().st_size for half in (False, True)]
    assert sizes[1] < 0.6 * sizes[0]
    whole, half = (
        dermafuse.load(tmp_path / str(half), precision="f32").predict(tiny_image()).probabilities
        for half in (False, True)
    )
    assert all(abs(whole[code] - half[code]) < 0.01 for code in whole)


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "calibration.json",
        "head.safetensors",
        "labels.json",
        "model.bin",
        "model.xml",
        "preprocessing.json",
    ],
)
def test_a_changed_byte_or_a_missing_file_is_refused_by_name(bundle, name):
    data = bytearray((bundle / name).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / name).write_bytes(data)
    refused(bundle, name, "changed")
    (bundle / name).write_bytes(data[:-1])
    refused(bundle, name, "bytes")
    (bundle / name).unlink()
    refused(bundle, name, "missing")


def test_an_unlisted_file_is_refused_but_not_the_litter_of_file_managers(bundle):
    (bundle / ".DS_Store").write_bytes(b"x")
    (bundle / "Thumbs.db").write_bytes(b"x")
    read_bundle(bundle)
    (bundle / "setup.py").write_text("print()")
    refused(bundle, "setup.py")


def test_a_newer_format_asks_for_an_update_even_if_all_else_changed(bundle):
    (bundle / MANIFEST).write_text('{"format_version": 2, "parts": []}')
    refused(bundle, "newer", "update dermafuse")


def test_another_preprocessing_is_refused(bundle):
    edit(bundle, "preprocessing.json", lambda value: value.update(version=PREPROCESSING_VERSION + 1))
    refused(bundle, "preprocessing")


@pytest.mark.parametrize("name", ["../model.xml", "/etc/passwd", "a/../../b.xml", "a\\b.xml", "C:x", ".hidden", ""])
def test_a_path_that_leaves_the_folder_is_refused(bundle, name):
    def point(value):
        value["files"][name] = value["files"].pop("model.xml")
        value["members"][0]["model"] = name

    edit(bundle, MANIFEST, point)
    refused(bundle, "not a plain file name")


def test_a_link_that_leaves_the_folder_is_refused_and_one_inside_is_not(bundle, tmp_path):
    card = bundle / "README.md"
    card.rename(tmp_path / "card")
    card.symlink_to(tmp_path / "card")
    refused(bundle, "README.md", "link that leaves")
    card.unlink()
    (tmp_path / "card").rename(bundle / ".card")
    card.symlink_to(".card")
    read_bundle(bundle)
    card.unlink()
    card.symlink_to("README.md")
    refused(bundle, "README.md")


def test_a_pipe_in_place_of_a_file_is_refused_without_waiting(bundle):
    (bundle / "labels.json").unlink()
    os.mkfifo(bundle / "labels.json")
    refused(bundle, "labels.json", "not a regular file")


def test_what_is_not_a_bundle_is_told_apart(tmp_path):
    refused(tmp_path / "none", "does not exist")
    (tmp_path / "file").write_text("x")
    refused(tmp_path / "file", "is a file")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "manifest.json")


@pytest.mark.parametrize(
    ("name", "change", "word"),
    [
        (MANIFEST, lambda v: v.update(extra=1), "extra"),
        (MANIFEST, lambda v: v.update(format="other"), "format"),
        (MANIFEST, lambda v: v["files"].pop("labels.json"), "labels.json"),
        (MANIFEST, lambda v: v["files"].update({"run.sh": v["files"]["labels.json"]}), "run.sh"),
        (MANIFEST, lambda v: v["files"]["labels.json"].update(sha256="0"), "sha256"),
        (MANIFEST, lambda v: v["members"].append(v["members"][0]), "share a file"),
        (MANIFEST, lambda v: v.update(members=[{"model": "labels.json", "weights": "model.bin"}]), "name of another"),
        (MANIFEST, lambda v: v.update(members=[]), "members"),
        (MANIFEST, lambda v: v["info"].update(x=float("nan")), "NaN"),
        ("calibration.json", lambda v: v.update(temperature=0), "temperature"),
        ("calibration.json", lambda v: v.update(temperature=float("inf")), "temperature"),
        ("calibration.json", lambda v: v.update(temperature="1"), "temperature"),
        ("calibration.json", lambda v: v.update(offsets=[0.0] * 6), "offsets"),
        ("calibration.json", lambda v: v.update(prediction_set={"coverage": 2, "minimum_probability": []}), "coverage"),
        ("calibration.json", lambda v: v["prediction_set"].update(minimum_probability=[0.1]), "minimum_probability"),
        ("calibration.json", lambda v: v["out_of_distribution"].update(method="knn", threshold=1.0), "ood/bank"),
        ("labels.json", lambda v: v["classes"].pop(), "classes"),
        ("labels.json", lambda v: v["classes"].append("nv"), "twice"),
        ("labels.json", lambda v: v.update(malignant=["xyz"]), "malignant"),
        ("preprocessing.json", lambda v: v.update(image_size=64), "image_size"),
        ("preprocessing.json", lambda v: v.update(image_size=10**9), "image_size"),
        ("preprocessing.json", lambda v: v["metadata"].update(numeric=None), "metadata"),
        ("preprocessing.json", lambda v: v["metadata"].update(numeric=[]), "meta_input"),
    ],
)
def test_a_resealed_bundle_with_a_wrong_value_is_refused_with_its_reason(bundle, name, change, word):
    edit(bundle, name, change)
    refused(bundle, word)


@pytest.mark.parametrize("name", JSON_FILES)
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b"9" * 10_000, b"NaN"])
def test_what_is_not_json_is_refused(bundle, name, content):
    (bundle / name).write_bytes(content)
    if name != MANIFEST:
        seal(bundle, name)
    refused(bundle, name)


@pytest.mark.parametrize("name", ["model.xml", "model.bin", "head.safetensors", "README.md"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00garbage", b"<net></net>"])
def test_a_resealed_network_or_array_file_of_garbage_is_refused_or_harmless(bundle, name, content):
    (bundle / name).write_bytes(content)
    seal(bundle, name)
    if name == "README.md" and content != b"\xff\xfe\x00garbage":
        read_bundle(bundle)
    else:
        refused(bundle)


def test_a_network_that_breaks_the_contract_is_refused_before_anything_is_written(tmp_path):
    for broken in (
        tiny_network(classes=6, width=tiny_content().encoder.width),
        tiny_network(width=5),
        tiny_network(width=tiny_content().encoder.width, size=64),
    ):
        with pytest.raises(BundleError):
            write_bundle(tmp_path / "m", tiny_content(models=(broken,)))
    nameless = tiny_network(width=tiny_content().encoder.width)
    nameless.output("embedding").get_tensor().set_names({"other"})
    with pytest.raises(BundleError, match="embedding"):
        write_bundle(tmp_path / "m", tiny_content(models=(nameless,)))
    assert not (tmp_path / "m").exists()


def test_a_network_without_metadata_serves_a_data_set_with_metadata(tmp_path):
    found = dermafuse.load(tiny_bundle(tmp_path / "m", models=(tiny_network(),)))
    assert found.fields == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"temperature": float("nan")},
        {"offsets": (0.0,)},
        {"head": {"baseline/embedding": np.zeros(3, np.float32)}},
        {"ood": OutOfDistribution(method="knn", threshold=1.0)},
        {"info": {"x": float("inf")}},
        {"labels": LabelSet.of(("benign", "malignant"))},
        {"models": ()},
    ],
)
def test_content_that_does_not_fit_together_is_not_written(tmp_path, changes):
    with pytest.raises(BundleError):
        write_bundle(tmp_path / "m", tiny_content(**changes))
    assert not (tmp_path / "m" / MANIFEST).exists()


def test_a_folder_in_use_is_not_written_into(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="not empty"):
        write_bundle(tmp_path, tiny_content())
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)


def places(value, path=()):
    """Every position in a JSON value, the value itself first."""
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


def loads_or_refuses(folder):
    said = ""
    try:
        read_bundle(folder)
    except BundleError as error:
        said = str(error)
    assert "\n" not in said
    said.encode()


@pytest.mark.parametrize("name", JSON_FILES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_json_value_anywhere_is_loaded_or_clearly_refused(original, tmp_path, name, data):
    folder = tmp_path / "fuzzed"
    if not folder.exists():
        shutil.copytree(original, folder)
    for each in (name, MANIFEST):
        shutil.copy(original / each, folder / each)
    value = json.loads((original / name).read_text())
    path = data.draw(st.sampled_from(list(places(value))))
    new = data.draw(ANY_JSON)
    holder = value
    for key in path[:-1]:
        holder = holder[key]
    if not path:
        value = new
    elif data.draw(st.booleans()) or not isinstance(holder, dict):
        holder[path[-1]] = new
    else:
        holder[data.draw(st.text(max_size=10))] = holder.pop(path[-1])
    (folder / name).write_text(json.dumps(value))
    if name != MANIFEST:
        seal(folder, name)
    loads_or_refuses(folder)


@pytest.mark.parametrize("name", [*JSON_FILES, "head.safetensors"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_to_the_bytes_is_loaded_or_clearly_refused(original, tmp_path, name, data):
    folder = tmp_path / "fuzzed"
    if not folder.exists():
        shutil.copytree(original, folder)
    shutil.copy(original / MANIFEST, folder / MANIFEST)
    content = bytearray((original / name).read_bytes())
    start = data.draw(st.integers(0, len(content)))
    stop = data.draw(st.integers(start, min(len(content), start + 8)))
    content[start:stop] = data.draw(st.binary(max_size=8))
    (folder / name).write_bytes(content)
    if name != MANIFEST:
        seal(folder, name)
    loads_or_refuses(folder)


GAUSSIAN = {
    "ood/means": np.zeros((1, CHANNELS), np.float32),
    "ood/whitening": np.eye(CHANNELS, 3, dtype=np.float16),
    "baseline/embedding": np.zeros(CHANNELS, np.float32),
}
BANK = {"ood/bank": np.eye(5, CHANNELS, dtype=np.float16)}


@pytest.fixture(scope="module")
def gaussian(tmp_path_factory):
    rule = OutOfDistribution(method="mahalanobis", threshold=20.0)
    return tiny_bundle(tmp_path_factory.mktemp("gaussian") / "model", head=GAUSSIAN, ood=rule, offsets=(0.1,) * 7)


def leaves(value, path=()):
    """The positions of numbers, texts and lists as a whole, and of each list's first value."""
    if isinstance(value, dict | list):
        for key, child in value.items() if isinstance(value, dict) else enumerate(value[:1]):
            yield from leaves(child, (*path, key))
    if not isinstance(value, dict):
        yield path


WRONG = (
    float("nan"),
    float("inf"),
    -float("inf"),
    1e308,
    -1e308,
    2**39,
    2**63,
    -1,
    0,
    1e-3,
    5,
    "",
    [],
    {},
    None,
    [5],
    True,
)


@pytest.mark.parametrize("name", JSON_FILES)
def test_any_value_in_any_field_is_refused_or_predicts_finite_probabilities(gaussian, tmp_path, name):
    folder = shutil.copytree(gaussian, tmp_path / "model")
    whole = {file: (folder / file).read_bytes() for file in {name, MANIFEST}}
    value = json.loads(whole[name])
    if name == MANIFEST:
        value["info"] = {"announcements": ["said"], "recipe": "seed", "backbone": "b", "x": 1}
    refusals = 0
    for path in leaves(value):
        holder = value
        for key in path[:-1]:
            holder = holder[key]
        before = holder[path[-1]]
        for wrong in WRONG:
            holder[path[-1]] = wrong
            (folder / name).write_text(json.dumps(value))
            if name != MANIFEST:
                (folder / MANIFEST).write_bytes(whole[MANIFEST])
                seal(folder, name)
            refusals += not predicts(folder)
        holder[path[-1]] = before
    assert refusals > 30


def predicts(folder):
    """Whether a bundle loads; what it then says of an image must be whole."""
    try:
        predictor = dermafuse.load(folder, precision="f32", threads=1)
    except BundleError as error:
        assert "\n" not in str(error)
        return False
    answer = predictor.predict(tiny_image(), age=55)
    assert np.isfinite(list(answer.probabilities.values())).all()
    assert sum(answer.probabilities.values()) == pytest.approx(1.0)
    assert all(isinstance(text, str) for text in predictor.bundle.info.get("announcements", []))
    return True


@pytest.mark.parametrize("size", [2**39, 2**31, 2**40 - 1])
def test_the_manifest_does_not_say_how_much_memory_is_taken(bundle, size):
    import tracemalloc

    edit(bundle, MANIFEST, lambda v: v["files"]["labels.json"].update(bytes=size))
    tracemalloc.start()
    refused(bundle, "labels.json", "bytes")
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("name", "array", "word"),
    [
        ("ood/means", np.zeros((0, CHANNELS), np.float32), "ood/means"),
        ("ood/means", np.zeros(CHANNELS, np.float32), "ood/means"),
        ("ood/means", np.full((1, CHANNELS), 1e30, np.float32), "beyond"),
        ("ood/whitening", np.zeros((CHANNELS, 0), np.float16), "ood/whitening"),
        ("ood/whitening", np.zeros((CHANNELS, 3), np.float16), "all zero"),
        ("ood/whitening", np.zeros((CHANNELS - 1, 3), np.float16), "ood/whitening"),
        ("ood/bank", np.zeros((0, CHANNELS), np.float16), "ood/bank"),
        ("ood/bank", np.zeros((5, CHANNELS), np.float16), "length 1"),
        ("ood/bank", np.eye(2, CHANNELS, dtype=np.float16), "neighbours"),
        ("baseline/embedding", np.full(CHANNELS, np.nan, np.float32), "finite"),
        ("baseline/embedding", np.zeros(0, np.float32), "baseline/embedding"),
    ],
)
def test_an_array_that_switches_a_rule_off_is_refused(bundle, name, array, word):
    method = "knn" if name == "ood/bank" else "mahalanobis"
    edit(
        bundle,
        "calibration.json",
        lambda v: v["out_of_distribution"].update(method=method, threshold=1.0, neighbours=3),
    )
    (bundle / "head.safetensors").write_bytes(safetensors.numpy.save({**GAUSSIAN, **BANK, name: array}))
    seal(bundle, "head.safetensors")
    refused(bundle, word)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda v: v.update(temperature=1e-3), "temperature"),
        (lambda v: v.update(offsets=[1e308] * 7), "offsets"),
        (lambda v: v["out_of_distribution"].update(threshold=1e300), "threshold"),
        (lambda v: v["out_of_distribution"].update(method="knn", threshold=-1.0), "threshold"),
        (lambda v: v["prediction_set"].update(coverage=1.0), "coverage"),
    ],
)
def test_a_number_that_no_fit_gives_is_refused(bundle, change, word):
    edit(bundle, "calibration.json", change)
    refused(bundle, word)


@pytest.mark.parametrize("said", [5, "x", [1], {"a": "b"}, [None], ["x"] * 101])
def test_announcements_that_are_no_texts_are_refused(bundle, said):
    edit(bundle, MANIFEST, lambda v: v["info"].update(announcements=said))
    refused(bundle, "announcements")


def test_dermafuse_imports_nothing_heavy_and_predicting_no_training_library(original):
    import subprocess
    import sys

    code = (
        "import sys, dermafuse\n"
        "assert not {'numpy', 'openvino', 'pydantic'} & set(sys.modules), 'import dermafuse is not light'\n"
        f"import numpy as np; dermafuse.load({str(original)!r}).predict(np.zeros((8, 8, 3), np.uint8), age=5)\n"
        "print(*{'pandas', 'sklearn', 'scipy', 'tensorflow', 'keras', 'matplotlib'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""


def test_load_without_a_path_says_what_to_do_where_no_model_is_released(monkeypatch, tmp_path):
    from dermafuse.runtime import released

    monkeypatch.setattr(released, "__file__", str(tmp_path / "a/b/c/d/released.py"))
    with pytest.raises(BundleError, match="RUN"):
        dermafuse.load()


def test_openvino_reads_what_was_written(bundle):
    assert isinstance(ov.Core().read_model(bundle / "model.xml"), ov.Model)
