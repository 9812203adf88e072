"""Options of a measure may change what its value means; maps and tests follow them."""

import numpy as np
import pytest

import repsim
from repsim.measures import MEASURES

rng = np.random.default_rng(0)
X = rng.standard_normal((60, 6))
NEAR = X[:, ::-1] + 0.3 * rng.standard_normal((60, 6))
FAR = rng.standard_normal((60, 6))


def test_a_preset_given_as_options_has_the_kind_unit_and_range_of_its_entry():
    for name, entry in MEASURES.items():
        named = repsim.pairwise({"a": X}, {"b": NEAR}, measure=name)
        function = entry.function.__name__
        given = repsim.pairwise({"a": X}, {"b": NEAR}, measure=function, **entry.preset)
        assert given.item() == named.item(), name
        for attribute in ("kind", "units", "least", "greatest", "value_if_equal"):
            assert given.attrs.get(attribute) == named.attrs.get(attribute), (name, attribute)
        assert given.attrs["measure"] == function


def test_a_similarity_chosen_by_an_option_is_tested_as_one():
    options = {"measure": "soft_matching", "score": "correlation", "permutations": 99}
    assert repsim.permutation_test(X, NEAR, **options).p_value == 0.01
    assert repsim.permutation_test(X, FAR, **options).p_value > 0.05
    found = repsim.max_t({"x": X}, {"near": NEAR, "far": FAR}, **options)
    assert found.p_adjusted.sel(layer_y="near").item() == 0.01
    assert found.p_adjusted.sel(layer_y="far").item() > 0.05


def test_a_distance_chosen_by_an_option_is_tested_as_one():
    options = {"measure": "soft_matching_correlation", "score": "distance", "permutations": 99}
    assert repsim.permutation_test(X, NEAR, **options).p_value == 0.01
    assert repsim.permutation_test(X, FAR, **options).p_value > 0.05


def test_the_best_match_follows_the_option():
    map_of_two = repsim.pairwise(
        {"x": X}, {"far": FAR, "near": NEAR}, measure="soft_matching", score="correlation"
    )
    assert repsim.layer_match(map_of_two).match.item() == "near"


def test_held_out_r_squared_has_no_least_value():
    for measure, options in (
        ("linear_regression_r2", {"folds": 5}),
        ("predictivity", {"score": "r2"}),
    ):
        found = repsim.pairwise({"x": X}, {"y": FAR}, measure=measure, **options)
        assert found.item() < 0, measure
        assert "least" not in found.attrs, measure
        assert found.attrs["greatest"] == 1, measure
        test = repsim.permutation_test(X, NEAR, measure=measure, permutations=99, **options)
        assert test.p_value == 0.01, measure
        whole = repsim.max_t({"x": X}, {"y": NEAR}, measure=measure, permutations=99, **options)
        assert whole.p_value.item() == 0.01, measure
    divided = repsim.pairwise({"x": X}, {"y": NEAR}, measure="predictivity", reliability=0.5)
    assert not {"least", "greatest"} & set(divided.attrs)


def test_equal_representations_are_not_always_at_the_end():
    """A penalty and few samples leave a part unexplained; equal dissimilarities are in no order."""
    tied = X[[0, 0, 1, 1, 2, 3, 4, 5, 6, 7]]
    for measure, below, at_end in (
        ("linear_regression_r2", {"ridge": 2.0}, {"ridge": 0.0}),
        ("linear_regression_r2", {"folds": 2}, {}),
        ("rsa", {"comparison": "kendall_a"}, {"comparison": "kendall"}),
        ("rsa", {"comparison": "rho_a"}, {"comparison": "spearman"}),
    ):
        lower, one = (
            repsim.pairwise({"x": tied}, measure=measure, **options) for options in (below, at_end)
        )
        assert lower.item() < 0.999
        assert one.item() == pytest.approx(1)
        assert "value_if_equal" not in lower.attrs
        assert one.attrs["value_if_equal"] == 1
        assert lower.attrs["greatest"] == 1  # so it can be calibrated


def test_partial_and_sampled_cka_have_other_ends():
    options = {"measure": "cka", "estimator": "biased"}
    plain = repsim.pairwise({"x": X}, {"y": FAR}, **options)
    assert (plain.attrs["least"], plain.attrs["greatest"]) == (0, 1)
    partial = repsim.pairwise({"x": X[:, :2]}, {"y": X[:, 1:3]}, given=X[:, :3], **options)
    assert partial.item() < 0
    assert (partial.attrs["least"], partial.attrs["greatest"]) == (-1, 1)
    sampled = repsim.pairwise({"x": X}, features="sampled", **options)
    assert sampled.item() > 1
    assert sampled.attrs["least"] == 0
    assert not {"greatest", "value_if_equal"} & set(sampled.attrs)
    many = X[:, :2] @ rng.standard_normal((2, 20)) + FAR[:, :1]
    found = repsim.inference.subsample(many, many, features="sampled", draws=20)
    assert found.value > 1
    assert found.low < found.value < found.high
    with pytest.raises(repsim.InputError, match="calibrated_score: measure must be a similarity"):
        repsim.calibrated_score(X, NEAR, features="sampled")


def test_unknown_options_are_an_error_of_the_function_that_was_called():
    with pytest.raises(repsim.InputError, match="permutation_test: unknown options"):
        repsim.permutation_test(X, FAR, measure="procrustes", normalise=True)


def test_an_argument_that_is_misspelt_is_suggested():
    for test, given in (
        (repsim.permutation_test, {"n_permutations": 9}),
        (repsim.calibrated_score, {"permutation": 9}),
        (repsim.inference.subsample, {"n_draws": 9}),
        (repsim.inference.subsample, {"group": np.arange(60)}),
    ):
        with pytest.raises(repsim.InputError, match=r"there is no argument(.*\n)+.*Did you mean"):
            test(X, FAR, measure="rsa", **given)
    for test, given in ((repsim.max_t, {"permutation": 9}), (repsim.pairwise, {"sample_x": None})):
        with pytest.raises(repsim.InputError, match=r"there is no argument(.*\n)+.*Did you mean"):
            test({"a": X}, {"b": FAR}, measure="rsa", **given)
