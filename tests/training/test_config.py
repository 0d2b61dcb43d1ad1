from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dermafuse.errors import ConfigError
from dermafuse.training.config import TrainConfig, parse_assignment, resolve, to_toml
from dermafuse.training.loop.experimental import EXPERIMENTAL
from dermafuse.training.recipes import MEANINGS, RECIPES


def test_the_default_recipe_is_standard_and_its_split_leak_free() -> None:
    config = resolve()
    assert (config.recipe, config.split) == ("standard", "lesion")


def test_the_seed_recipe_is_the_reference_to_the_letter() -> None:
    config = resolve("seed")
    assert config.backbone == "efficientnet_b1"
    assert config.split == "image"
    assert config.validation_fraction == 0.2
    assert config.unfreeze_from is None
    assert (config.image_dropout, config.fusion_dropout) == (0.3, 0.4)
    assert config.meta_units == (32, 16)
    assert config.fusion_units == 64
    assert (config.learning_rate, config.patience) == (1e-3, 5)
    assert config.class_weighting == "balanced"
    assert config.early_stopping_rows == "validation"


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_config_toml_reads_back_to_the_same_configuration(tmp_path: Path, recipe: str) -> None:
    config = resolve(recipe, options={"data": "some where/ä", "seed": 7})
    (tmp_path / "config.toml").write_text(to_toml(config), encoding="utf-8")
    assert resolve(file=tmp_path / "config.toml") == config


@given(
    epochs=st.integers(1, 1000),
    rate=st.floats(1e-9, 10, allow_nan=False),
    units=st.lists(st.integers(1, 512), max_size=4),
    stage=st.one_of(st.none(), st.sampled_from(["block1", "block6", "top", "all"])),
)
def test_any_valid_configuration_survives_the_round_trip(
    tmp_path_factory: pytest.TempPathFactory, epochs: int, rate: float, units: list[int], stage: str | None
) -> None:
    config = resolve(
        "seed", options={"epochs": epochs, "learning_rate": rate, "meta_units": units, "unfreeze_from": stage}
    )
    file = tmp_path_factory.mktemp("config") / "config.toml"
    file.write_text(to_toml(config), encoding="utf-8")
    assert resolve(file=file) == config


def test_the_last_word_wins_recipe_then_file_then_option_then_set(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('recipe = "seed"\nepochs = 3\npatience = 2\nseed = 9\n', encoding="utf-8")
    config = resolve(file=file, options={"patience": 4, "seed": 8}, assignments=["seed=7"])
    assert (config.recipe, config.epochs, config.patience, config.seed) == ("seed", 3, 4, 7)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("epoch=3", "Did you mean 'epochs'"),
        ("epochs=many", "epochs"),
        ("epochs=0", "greater than or equal to 1"),
        ("split=patient", "split"),
        ("noequals", "key=value"),
        ("recipe=sead", "Did you mean 'seed'"),
    ],
)
def test_a_wrong_setting_is_refused_with_what_to_do(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve("seed", assignments=[assignment])


def test_values_are_read_as_toml_else_as_text() -> None:
    assert parse_assignment("a=1e-3") == ("a", 1e-3)
    assert parse_assignment("a = [1, 2]") == ("a", [1, 2])
    assert parse_assignment("a=false") == ("a", False)
    assert parse_assignment("a=lesion") == ("a", "lesion")


def test_every_setting_has_a_place_in_the_file() -> None:
    text = to_toml(resolve("standard"))
    for name in TrainConfig.model_fields:
        assert f"{name} = " in text


@pytest.mark.parametrize("name", EXPERIMENTAL)
def test_an_experimental_setting_is_a_setting_that_no_recipe_uses(name: str) -> None:
    assert name in TrainConfig.model_fields
    assert all(getattr(resolve(recipe), name) == 0 for recipe in RECIPES)
    assert getattr(resolve("seed", assignments=[f"{name}=0.5", "unfreeze_from=top"]), name) == 0.5


def test_every_recipe_says_what_it_is_for_and_sets_nothing_but_settings() -> None:
    assert set(MEANINGS) == set(RECIPES)
    assert all(set(settings) <= set(TrainConfig.model_fields) for settings in RECIPES.values())
