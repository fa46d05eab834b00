"""The gradient estimation task: its figures, its problems, its pairs, and what it refuses."""

import numpy as np
import pytest
import torch

from replications import catalogue, running
from replications.datasets.prepare import prepare
from replications.errors import UserError
from replications.layers.gradients.categorical_vae import CategoricalVAE
from replications.layers.gradients.distributions import Gaussian, OneHot
from replications.layers.gradients.model import Estimator
from replications.tasks.base import find_task
from replications.tasks.gradient_estimation import execute
from replications.tasks.gradient_estimation.execute import Digits, encoder_variance, workload
from replications.tasks.gradient_estimation.measures import measure
from replications.tasks.gradient_estimation.problems import one_hot_problems
from replications.tasks.gradient_estimation.rescore import rescore

TASK = find_task("gradient_estimation")
CPU = torch.device("cpu")


class Known(Estimator):
    """The exact gradient times `factor`, with noise of a known variance in each of its entries."""

    families = (OneHot, Gaussian)

    def __init__(self, factor: float, deviation: float, evaluations: int = 1):
        super().__init__()
        self.factor, self.deviation, self.evaluations = factor, deviation, evaluations

    def gradient(self, problem, parameter, samples, generator):
        noise = torch.randn(samples, *parameter.shape, dtype=torch.float64, generator=generator)
        return self.factor * problem.exact() + self.deviation * noise


def options(**changes):
    return TASK.parse_options({"samples": 20_000, **changes})


def test_bias_its_error_and_variance_are_those_that_the_estimates_were_given():
    wanted = options(dimensions=(1, 10))
    arrays = measure(Known(1.2, 0.5, evaluations=3), wanted, seed=12)
    found = rescore(arrays)
    scale = np.square(arrays["exact_one_hot"]).sum()
    noise = 5 * 8 * 0.25 / scale
    assert found["bias"] == pytest.approx(0.2, abs=4 * (noise / 20_000) ** 0.5)
    assert found["variance"] == pytest.approx(3 * noise, rel=0.02)
    assert found["bias_error"] == pytest.approx((noise / 20_000) ** 0.5, rel=0.02)
    assert found["bias_dim10"] == pytest.approx(0.2, abs=0.01)
    cases = [found[f"bias{c}"] / found[f"bias_error{c}"] for c in ("", "_dim1", "_dim10")]
    assert found["bias_in_errors"] == pytest.approx(np.mean(np.square(cases)) ** 0.5)


def test_an_estimator_without_bias_has_one_of_about_its_error():
    found = [rescore(measure(Known(1.0, 0.5), options(samples=5000), seed)) for seed in range(12, 16)]
    assert np.mean([f["bias_in_errors"] for f in found]) == pytest.approx(1.0, abs=0.25)


def test_temperatures_are_measured_one_by_one_and_the_own_one_comes_back():
    class Biased(Known):
        temperature = 0.7

        def gradient(self, problem, parameter, samples, generator):
            self.factor, self.deviation = 1 + self.temperature, 1 / self.temperature
            return super().gradient(problem, parameter, samples, generator)

    estimator = Biased(1.0, 1.0)
    found = rescore(measure(estimator, options(temperatures=(0.5, 1.0, 2.0), dimensions=(1,)), seed=12))
    assert estimator.temperature == 0.7
    assert found["bias"] == pytest.approx(0.7, abs=0.05)
    assert found["bias_tau0p5"] == pytest.approx(0.5, abs=0.05) and found["bias_tau2"] == pytest.approx(2, abs=0.05)
    assert found["least_bias_rise"] == pytest.approx(2, rel=0.1)
    assert found["least_variance_fall"] == pytest.approx(4, rel=0.1)


def test_a_seed_has_its_own_problems_and_all_methods_the_same_ones():
    one, again, other = (list(one_hot_problems(options(), seed)) for seed in (12, 12, 13))
    assert len(one) == 5
    for a, b, c in zip(one, again, other, strict=True):
        assert torch.equal(a.weight, b.weight) and torch.equal(a.parameter, b.parameter)
        assert not torch.equal(a.weight, c.weight)
    assert not torch.equal(one[0].target, one[1].target)


def test_samples_of_any_number_are_all_drawn(monkeypatch):
    from replications.tasks.gradient_estimation import measures

    drawn = []

    class Counted(Known):
        def gradient(self, problem, parameter, samples, generator):
            drawn.append(samples)
            return super().gradient(problem, parameter, samples, generator)

    monkeypatch.setattr(measures, "CHUNK", 10)
    measure(Counted(1.0, 1.0), options(samples=21, problems=1, dimensions=()), seed=12)
    assert drawn == [7, 7, 7]  # none of one, which has no other row to compare with


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": 0}, "samples"),
        ({"temperatures": [0.0, 1.0]}, "temperatures"),
        ({"temperatures": [1.0, 0.5]}, "temperatures must rise"),
        ({"variables": 9}, "9 variables of 8 categories have too many values to enumerate"),
    ],
)
def test_options_that_make_no_sense_are_one_line(changes, message):
    with pytest.raises(UserError, match=message) as found:
        options(**changes)
    assert "\n" not in str(found.value)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    prepare("digits_16", folder)
    return folder


def context(address, root, **network):
    spec = catalogue.resolve(address, "smoke", 12)
    merged = {**spec.task_options, "network": {**spec.task_options["network"], **network}}
    spec = spec.model_copy(update={"task_options": merged})
    return running.context.RunContext(spec, CPU, root, root / "work")


def test_digits_are_binarised_at_half_and_their_splits_do_not_meet(root):
    digits = Digits(context("reinforce/reinforce", root))
    from sklearn.datasets import load_digits

    grey = load_digits().images  # 0 to 16
    found = torch.cat([digits.part(split) for split in ("train", "validation", "test")]).numpy().reshape(-1, 8, 8)
    assert found.shape == (1797, 8, 8) and set(np.unique(found)) == {0, 1}
    assert (found == (grey > 8)).mean() > 0.95  # the set is enlarged and shrunk again: not all pixels come back
    assert [len(digits.part(s)) for s in ("train", "validation", "test")] == [1260, 180, 357]


def test_all_methods_of_a_seed_start_from_the_same_network(root):
    one, other = (workload(context(a, root)).stage.module.state_dict() for a in ("reinforce/reinforce", "rebar/rebar"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert workload(context("pathwise/pathwise", root)) is None


def test_the_networks_output_starts_at_the_mean_where_it_is_asked_to(root):
    half, mean = (
        workload(context("rebar/rebar", root, start_at_mean=asked)).stage.module.decoder[-1].bias.sigmoid()
        for asked in (False, True)
    )
    assert torch.equal(half, torch.full((64,), 0.5))
    wanted = Digits(context("rebar/rebar", root)).part("train").mean(0).clamp(0.01, 0.99)
    torch.testing.assert_close(mean, wanted)


def test_the_encoders_variance_is_that_of_its_gradient(root):
    module = workload(context("reinforce/reinforce", root)).stage.module
    image = (torch.rand(4, 64) > 0.5).float()

    class Noise(Estimator):
        def surrogate(self, f, q, generator=None):
            return (q.parameter * torch.randn(q.parameter.shape)).sum((-2, -1))

    module.estimator = Noise()
    last = module.encoder[-1]
    found = encoder_variance(module, image, 1000)
    hidden = module.encoder[:-1](image).detach()
    # the last layer's part: noise of variance 1 in each logit, times hidden units (and 1 for the bias), over 4 images
    wanted = last.out_features * float((hidden.square().sum() + 4) / 16)
    back = last.weight.detach().square().sum(0)  # what reaches a hidden unit
    wanted += float((back * (1 - hidden.square()).square()).sum(1) @ (image.square().sum(1) + 1) / 16)
    assert found == pytest.approx(wanted, rel=0.1)


def test_all_methods_of_a_seed_are_compared_at_one_checkpoint_whatever_their_rate(root, monkeypatch):
    seen = {}

    def variance(module, image, draws):
        seen[type(module.estimator).__name__] = {name: w.clone() for name, w in module.state_dict().items()}
        return 5.0

    monkeypatch.setattr(execute, "encoder_variance", variance)
    monkeypatch.setattr(CategoricalVAE, "nelbo", lambda self, image, draws: (torch.full([len(image)], 7.0),) * 2)
    for address, lr in (("reinforce/reinforce", 0.5), ("rebar/rebar", 0.003)):
        made = context(address, root / address)
        made.spec = made.spec.model_copy(update={"recipe": made.spec.recipe.model_copy(update={"lr": lr})})
        made.data_root = root
        found = execute.execute(made)
    assert set(seen) == {"Reinforce", "Rebar"}
    assert all(torch.equal(seen["Reinforce"][name], seen["Rebar"][name]) for name in seen["Rebar"])
    assert found.metrics["encoder_variance"] == 15  # REBAR has three evaluations
    assert found.metrics["nelbo"] == 7 and len(found.arrays["nelbo"]) == 357
    assert found.metrics["nelbo_gap"] < -10  # own draws, untrained: 64 pixels of about 0.6 nats


def test_a_batch_of_one_has_no_other_row_as_baseline(root):
    made = context("reinforce/baseline", root)
    made.spec = made.spec.model_copy(update={"recipe": made.spec.recipe.model_copy(update={"batch_size": 1})})
    with pytest.raises(UserError, match="it needs a batch of two or more") as found:
        execute.execute(made)
    assert "\n" not in str(found.value)


def test_images_that_shrink_to_nothing_are_refused_in_a_line(root):
    made = context("reinforce/reinforce", root, shrink=17)
    with pytest.raises(UserError, match="shrink 17 leaves no pixel of images of 16") as found:
        execute.execute(made)
    assert "\n" not in str(found.value)
