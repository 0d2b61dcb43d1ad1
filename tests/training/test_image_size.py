"""image_size=auto: what fits the images, the backbone and the time that the recipe states."""

from pathlib import Path

import pytest
from PIL import Image

from dermafuse.data.readers.read import read_dataset
from dermafuse.data.records import Records
from dermafuse.errors import ConfigError
from dermafuse.models.specs import spec
from dermafuse.training.config import resolve
from dermafuse.training.first_look import with_image_size
from dermafuse.training.recipes import AFFORDABLE_SIZE


@pytest.fixture
def of_size(tmp_path: Path):
    def records(*sizes: tuple[int, int]) -> Records:
        lines = ["lesion_id,image_id,dx,dx_type,age,sex,localization"]
        for number, size in enumerate(sizes):
            Image.new("RGB", size, (200, 150, 120)).save(tmp_path / f"ISIC_{number:07d}.jpg")
            lines.append(f"HAM_{number:07d},ISIC_{number:07d},nv,histo,50,male,back")
        (tmp_path / "HAM10000_metadata.csv").write_text("\n".join(lines) + "\n")
        return read_dataset(tmp_path)

    return records


def size_of(records: Records, *assignments: str) -> object:
    return with_image_size(resolve(assignments=assignments), records).image_size


def test_real_images_get_what_the_recipe_can_pay_for(of_size):
    assert size_of(of_size((600, 450), (400, 300))) == AFFORDABLE_SIZE["standard"]


def test_small_images_are_not_enlarged(of_size):
    assert size_of(of_size((130, 100), (130, 100), (600, 450))) == 144  # the next multiple of 16


def test_tiny_images_get_the_smallest_useful_side(of_size):
    assert size_of(of_size((20, 20))) == 64


def test_no_more_than_the_backbone_knows(of_size, monkeypatch):
    monkeypatch.setitem(AFFORDABLE_SIZE, "standard", 512)
    assert size_of(of_size((600, 450)), "backbone=efficientnet_lite0") == spec("efficientnet_lite0").image_size


def test_a_number_stays(of_size):
    assert size_of(of_size((600, 450)), "image_size=160") == 160


def test_a_resumed_run_keeps_its_number_whatever_auto_would_say_now(tmp_path: Path):
    from dermafuse.training.claim import recorded, resumed

    config = resolve(assignments=["image_size=144"])
    with recorded(tmp_path / "run" / "checkpoints", config):
        pass
    found = resumed(tmp_path / "run", {"image_size": "auto"})
    assert found is not None
    assert found.image_size == 144
    with pytest.raises(ConfigError, match="image_size"):
        resumed(tmp_path / "run", {"image_size": 160})


def test_every_recipe_that_says_auto_says_what_it_can_pay_for():
    from dermafuse.training.recipes import RECIPES

    assert {name for name in RECIPES if resolve(name).image_size == "auto"} == set(AFFORDABLE_SIZE)
