"""What the recipes of all papers resolve to, stage by stage, in every tier."""

import functools

import pytest
from torch import nn

from replications import catalogue
from replications.papers.mae import model as mae
from replications.parsing import merged
from replications.spec import TIERS, Recipe, RunSpec
from replications.tasks.image_classification import TASK
from replications.tasks.run import changed_recipe
from replications.training.optim import create_optimizer

ALL = [
    (f"{key}/{name}", tier)
    for key, paper in catalogue.papers().items()
    for name in paper.methods
    for tier in TIERS
    if catalogue.is_in_tier(f"{key}/{name}", tier)
]


def stage_recipes(spec: RunSpec) -> dict[str, Recipe]:
    """A run's recipes by what is trained; ``classifier`` is what claims on accuracy compare."""
    if spec.recipe is None:
        return {}
    if spec.task != "image_classification":
        return {"all": spec.recipe}
    options = TASK.parse_options(spec.task_options)
    pretrains = spec.paper == "mae" and spec.options.get("pretrain", True)
    changed = functools.partial(changed_recipe, spec.recipe, where="a test")
    return {
        "classifier": changed(options.finetune.recipe) if pretrains else spec.recipe,
        "probe": changed(options.probe.recipe),
    } | ({"pretrain": changed(options.pretrain.recipe)} if pretrains else {})


def weight_decay_rule(recipe: Recipe) -> bool | None:
    """Whether vectors are left out; None where nothing decays, or where the optimiser has a rule of its own."""
    if not recipe.weight_decay or recipe.optimizer == "lars":
        return None
    return bool(recipe.optimizer_options.get("filter_bias_and_bn", False))


def test_a_change_is_merged_at_any_depth_and_a_null_takes_out():
    base = {"a": {"b": {"c": 1, "d": 2}, "e": [1, 2]}, "f": 3}
    assert merged(base, {"a": {"b": {"d": 5, "g": 6}}}) == {
        "a": {"b": {"c": 1, "d": 5, "g": 6}, "e": [1, 2]}, "f": 3
    }  # fmt: skip
    assert merged(base, {"a": {"b": {"c": None}, "e": [7]}}) == {"a": {"b": {"d": 2}, "e": [7]}, "f": 3}
    assert merged(base, {"a": None, "f": {"x": 1}}) == {"f": {"x": 1}}
    assert merged({"clip": None}, {"clip": None, "x": None}) == {"clip": None, "x": None}, "nothing to take out"
    assert base == {"a": {"b": {"c": 1, "d": 2}, "e": [1, 2]}, "f": 3}, "the base stays as it was"


def test_an_assignment_and_a_stage_merge_like_a_method():
    spec = catalogue.resolve("mae/mae", "mini", 0, ["task.finetune.recipe={optimizer_options: {eps: 1.0e-6}}"])
    own = TASK.parse_options(spec.task_options).finetune.recipe
    assert own == {"lr": 1.2e-2, "optimizer_options": {"layer_decay": 0.75, "eps": 1.0e-6}}
    recipe = changed_recipe(spec.recipe, own, "a test")
    assert recipe.optimizer_options == {"filter_bias_and_bn": True, "layer_decay": 0.75, "eps": 1.0e-6}
    spec = catalogue.resolve("mae/mae", "mini", 0, ["task.finetune.recipe.clip_norm=null"])
    assert (
        changed_recipe(spec.recipe, TASK.parse_options(spec.task_options).finetune.recipe, "a test").clip_norm is None
    )
    assert spec.recipe.clip_norm == 1.0
    spec = catalogue.resolve("mae/mae", "paper", 0, ["recipe.optimizer_options.betas=null"])
    assert spec.recipe.optimizer_options == {"filter_bias_and_bn": True}


@pytest.mark.parametrize("tier", TIERS)
def test_both_sides_of_a_claim_leave_the_same_parameters_out_of_weight_decay(tier):
    """A difference would have to be numbered as a deviation ("weight decay") that the claim lists."""
    compared = 0
    for key, paper in catalogue.papers().items():
        for claim in paper.claims:
            if tier not in claim.tiers or claim.reference is None:
                continue
            sides = [stage_recipes(catalogue.resolve(s.method, tier, 0)) for s in (claim.subject, claim.reference)]
            for stage in sides[0].keys() & sides[1].keys():
                one, other = (side[stage] for side in sides)
                if one.optimizer != other.optimizer or None in (weight_decay_rule(one), weight_decay_rule(other)):
                    continue
                compared += 1
                told = [text for n, text in catalogue.deviations(key).items() if n in claim.deviations]
                assert weight_decay_rule(one) == weight_decay_rule(other) or any("weight decay" in t for t in told), (
                    f"{tier}: {key} {claim.id}, stage {stage}"
                )
    assert compared > (0 if tier != "smoke" else -1)


@pytest.mark.parametrize(("address", "tier"), ALL)
def test_the_optimizer_takes_what_every_stage_says(address, tier):
    """Every stage of every row makes an optimiser of the name it says: no option of another one is left over."""
    for stage, recipe in stage_recipes(catalogue.resolve(address, tier, 0)).items():
        module = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
        module.group_matcher = lambda coarse: {"stem": "^0", "blocks": r"^(\d+)"}
        optimizer = create_optimizer(module, recipe)
        decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
        matrix = decays[id(module[0].weight)]
        vectors = {decays[id(p)] for p in module.parameters() if p.ndim == 1}
        assert matrix == recipe.weight_decay, stage
        assert vectors == {0.0 if weight_decay_rule(recipe) in (True, None) else recipe.weight_decay}, stage


def official_scale(name: str, depth: int, decay: float) -> float:
    """Layer-wise decay of BEiT and MAE: stem 0, block i is i + 1, what follows is the last."""
    layer = depth + 1
    if name.startswith(("cls_token", "pos_embed", "patch_embed")):
        layer = 0
    elif name.startswith("blocks."):
        layer = int(name.split(".")[1]) + 1
    return decay ** (depth + 1 - layer)


@pytest.mark.parametrize("tier", TIERS)
def test_finetuning_and_the_supervised_row_decay_matrices_only_and_rates_fall_by_layer(tier):
    """MAE, claims M1: 1-D parameters, the class token and positions never decay, on both sides of the claim."""
    width, depth = 8, 3
    vit = {"patch": 4, "width": width, "depth": depth, "heads": 2}
    classifier = mae.build(5, 8, vit=vit, decoder={"width": width, "depth": 1, "heads": 2})
    names = {id(p): name for name, p in classifier.named_parameters()}
    for address in ("mae/mae", "mae/supervised"):
        recipe = stage_recipes(catalogue.resolve(address, tier, 0))["classifier"]
        groups = create_optimizer(classifier, recipe).param_groups
        seen = {names[id(p)]: (p, group) for group in groups for p in group["params"]}
        assert seen.keys() == {name for name, p in classifier.named_parameters() if p.requires_grad}
        for name, (parameter, group) in seen.items():
            decays = parameter.ndim > 1 and name not in ("cls_token", "pos_embed")
            assert group["weight_decay"] == (recipe.weight_decay if decays else 0.0), (address, name)
            if address == "mae/mae":
                assert group["lr_scale"] == pytest.approx(official_scale(name, depth, 0.75)), name


def test_pretraining_decays_its_tokens_as_the_authors_code_does():
    """There weight decay is off for 1-D parameters alone; class and mask token are [1, 1, width]."""
    network = mae.MaskedAutoencoder(8, patch=4, width=8, depth=1, heads=2, decoder={"width": 8, "depth": 1, "heads": 2})
    groups = create_optimizer(network, stage_recipes(catalogue.resolve("mae/mae", "paper", 0))["pretrain"]).param_groups
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert decays[id(parameter)] == (0.05 if parameter.ndim > 1 else 0.0), name


def test_the_papers_own_recipes_in_tier_paper():
    """MAE, Tables 8 to 11."""
    own = stage_recipes(catalogue.resolve("mae/mae", "paper", 0))
    base = {"filter_bias_and_bn": True}
    told = {
        stage: (r.optimizer, r.optimizer_options, r.batch_size, r.epochs, r.lr, r.weight_decay, r.clip_norm)
        for stage, r in own.items()
    }
    assert told == {
        "pretrain": ("adamw", base | {"betas": [0.9, 0.95]}, 4096, 800, 1.5e-4 * 16, 0.05, None),
        "classifier": ("adamw", base | {"betas": [0.9, 0.999], "layer_decay": 0.75}, 1024, 100, 1e-3 * 4, 0.05, None),
        "probe": ("lars", base | {"eps": 0.0}, 16384, 90, 0.1 * 64, 0.0, None),
    }
    assert [round(own[s].warmup * own[s].epochs) for s in own] == [5, 10, 40]
    scratch = catalogue.resolve("mae/supervised", "paper", 0).recipe
    assert (scratch.lr, scratch.weight_decay, scratch.batch_size, scratch.epochs) == (1e-4 * 16, 0.3, 4096, 300)


def test_detectors_have_their_authors_recipes_in_tier_paper():
    """DETR: 64 images, 300 epochs, drop at 200; Conditional DETR's code: 16 images, 50 epochs, drop at 40."""
    for address, batch, epochs, drop in (
        ("detr/detr", 64, 300, 200),
        ("conditional_detr/conditional_detr", 16, 50, 40),
    ):
        spec = catalogue.resolve(address, "paper", 0)
        recipe = spec.recipe
        assert (recipe.batch_size, recipe.epochs, recipe.lr, recipe.weight_decay) == (batch, epochs, 1e-4, 1e-4)
        assert [round(share * epochs) for share in recipe.schedule_milestones] == [drop]
        assert recipe.lr * spec.task_options["backbone_lr"] == pytest.approx(1e-5)
        assert (recipe.optimizer, recipe.clip_norm, recipe.warmup) == ("adamw", 0.1, 0)


def test_in_tier_paper_rows_are_augmented_as_their_papers_say():
    """ViT and ResNet by crops and mirror images; MAE's finetuning and supervised rows by mixup, cutmix, smoothing."""
    plain, strong = (0.0, 0.0, 0.0, 0.0), (0.3, 0.8, 1.0, 0.1)
    expected = {
        "vit/vit": plain, "vit/vit_coarse": plain, "vit/vit_mean": plain, "vit/vit_sincos": plain,
        "resnet/resnet": plain, "vit/deit": strong, "mae/supervised": strong, "mae/supervised_long": strong,
        "mae/mae": strong,
    }  # fmt: skip
    for address, told in expected.items():
        options = TASK.parse_options(catalogue.resolve(address, "paper", 0).task_options)
        used = options.finetune.augmentation if address == "mae/mae" else options.augmentation
        assert used.crop_scale == (0.08, 1.0)
        assert (used.colour, used.mixup, used.cutmix, used.smoothing) == told, address
        for weak in (options.pretrain, options.probe):
            assert (weak.augmentation.colour, weak.augmentation.mixup, weak.augmentation.smoothing) == (0, 0, 0)


def test_faster_rcnn_has_detectrons_nine_times_schedule():
    recipe = catalogue.resolve("faster_rcnn/faster_rcnn", "paper", 0).recipe
    assert [round(810 * share) for share in recipe.schedule_milestones] == [750, 790]
    assert (recipe.optimizer, recipe.momentum, recipe.lr, recipe.batch_size) == ("momentum", 0.9, 0.02, 16)
    assert (recipe.weight_decay, recipe.epochs, round(810 * recipe.warmup)) == (1e-4, 109, 1)


def test_arcfaces_recipe_in_tier_paper():
    """CASIA-WebFace: 512 images, 0.1 tenfold less at 20 k and 28 k of 32 k iterations, weight decay 5e-4."""
    recipe = catalogue.resolve("arcface/arcface", "paper", 0).recipe
    assert (recipe.optimizer, recipe.batch_size, recipe.lr, recipe.momentum) == ("momentum", 512, 0.1, 0.9)
    assert [round(share * recipe.steps) for share in recipe.schedule_milestones] == [20_000, 28_000]
    assert (recipe.steps, recipe.weight_decay, recipe.warmup) == (32_000, 5e-4, 0)
