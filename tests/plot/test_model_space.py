"""Trees and planes of models: distances, names, groups, and refused maps."""

from __future__ import annotations

import io

import numpy as np
import pytest
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.cluster import hierarchy
from scipy.spatial.distance import pdist, squareform

import repsim
from repsim import InputError
from repsim.plot import dendrogram, embedding

POINTS = np.random.default_rng(1).normal(size=(7, 2)) * [3.0, 1.0]


def as_map(values, kind="dissimilarity", dim="model", name="gap", **attrs):
    names = [f"net {i}" for i in range(len(values))]
    return xr.DataArray(
        values,
        dims=(f"{dim}_x", f"{dim}_y"),
        coords={f"{dim}_x": names, f"{dim}_y": names},
        name=name,
        attrs={"kind": kind, **attrs},
    )


def drawn_points(ax):
    return np.concatenate([np.column_stack(line.get_data()) for line in ax.lines])


class TestEmbedding:
    def test_distances_of_a_plane_are_kept(self):
        gaps = squareform(pdist(POINTS))
        for result in (as_map(gaps), as_map(gaps, dim="layer"), as_map(gaps).T):
            ax = embedding(result)
            np.testing.assert_allclose(squareform(pdist(drawn_points(ax))), gaps, atol=1e-12)
        spread = np.linalg.svd(POINTS - POINTS.mean(0), compute_uv=False) ** 2
        share = 100 * spread[0] / spread.sum()
        assert ax.get_xlabel() == f"axis 1 ({share:.0f} % of the squared distances)"

    def test_a_cosine_is_the_distance_of_unit_vectors(self):
        unit = POINTS / np.linalg.norm(POINTS, axis=1, keepdims=True)
        ax = embedding(as_map(unit @ unit.T, "similarity"))
        found = squareform(pdist(drawn_points(ax)))
        np.testing.assert_allclose(found, squareform(pdist(unit)), atol=1e-7)

    def test_the_order_of_the_models_does_not_matter(self):
        gaps, order = squareform(pdist(POINTS)), [4, 2, 0, 6, 5, 3, 1]
        shuffled = embedding(as_map(gaps[np.ix_(order, order)]))
        found = drawn_points(shuffled)
        np.testing.assert_allclose(found, drawn_points(embedding(as_map(gaps)))[order], atol=1e-9)

    def test_identical_models_are_one_point(self):
        ax = embedding(as_map(np.zeros((3, 3))))
        np.testing.assert_allclose(drawn_points(ax), 0.0)
        assert ax.get_xlabel() == "axis 1 (0 % of the squared distances)"

    def test_names_do_not_cover_each_other(self):
        close = np.concatenate([POINTS, POINTS + np.array([0.3, 0.0])])
        ax = embedding(as_map(squareform(pdist(close))))
        FigureCanvasAgg(ax.figure).draw()
        (names,) = [artist for artist in ax.artists if hasattr(artist, "get_texts")]
        boxes = [text.get_window_extent() for text in names.get_texts()]
        assert [text.get_text() for text in names.get_texts()] == [f"net {i}" for i in range(14)]
        covered = [(i, j) for i in range(14) for j in range(i) if boxes[i].overlaps(boxes[j])]
        assert not covered
        assert all(ax.bbox.fully_overlaps(box) for box in boxes)

    def test_a_new_figure_grows_with_the_names(self):
        sides = [
            embedding(as_map(squareform(pdist(np.random.default_rng(0).random((m, 2)))))).figure
            for m in (5, 80, 800)
        ]
        few, many, most = (float(figure.get_figwidth()) for figure in sides)
        assert few < many < most < 10.0


class TestDendrogram:
    def test_heights_are_those_of_scipy(self):
        gaps = squareform(pdist(POINTS))
        for method in ("average", "complete", "single", "weighted"):
            ax = dendrogram(as_map(gaps), method=method)
            heights = sorted(max(line[:, 0]) for line in ax.collections[0].get_segments())
            expected = hierarchy.linkage(pdist(POINTS), method=method)[:, 2]
            np.testing.assert_allclose(heights, expected)

    def test_a_similarity_is_a_distance_from_the_same(self):
        rng = np.random.default_rng(0)
        arrays = {name: rng.standard_normal((30, 4)) for name in "abc"}
        arrays["a too"] = arrays["a"] + 0.1 * rng.standard_normal((30, 4))
        result = repsim.pairwise(arrays, measure="cka")
        ax = dendrogram(result)
        first = min(max(line[:, 0]) for line in ax.collections[0].get_segments())
        value = result.sel(layer_x="a", layer_y="a too").item()
        assert first == pytest.approx(1 - value)
        assert ax.get_xlabel() == "1 − CKA (linear, unbiased)"
        names = [label.get_text() for label in ax.get_yticklabels()]
        assert abs(names.index("a") - names.index("a too")) == 1

    def test_a_dissimilarity_is_drawn_as_it_is(self):
        rng = np.random.default_rng(0)
        arrays = {name: rng.standard_normal((30, 4)) for name in "abc"}
        result = repsim.pairwise(arrays, measure="procrustes")
        ax = dendrogram(result)
        lowest = min(max(line[:, 0]) for line in ax.collections[0].get_segments())
        assert lowest == pytest.approx(result.values[~np.eye(3, dtype=bool)].min())
        assert ax.get_xlabel().split() == ["procrustes", "(in", "units", "of", "the", "features)"]

    def test_a_value_above_the_same_is_the_same(self):
        values = np.array([[1.0, 1.1, 0.2], [1.1, 1.0, 0.3], [0.2, 0.3, 1.0]])
        ax = dendrogram(as_map(values, "similarity", measure="cka"))
        assert min(max(line[:, 0]) for line in ax.collections[0].get_segments()) == 0.0

    def test_the_similarity_of_a_dataset_is_taken(self):
        gaps = squareform(pdist(POINTS))
        dataset = xr.Dataset({"standard_error": as_map(gaps / 9), "cka": as_map(gaps)})
        ax = dendrogram(dataset)
        highest = max(max(line[:, 0]) for line in ax.collections[0].get_segments())
        assert highest == pytest.approx(hierarchy.linkage(pdist(POINTS), "average")[-1, 2])


class TestBoth:
    @pytest.fixture(params=[dendrogram, embedding])
    def draw(self, request):
        return request.param

    def test_groups_have_colours_and_a_key(self, draw):
        gaps = squareform(pdist(POINTS))
        listed = ["cnn", "cnn", "vit", "cnn", "vit", "mlp", "vit"]
        named = {f"net {i}": group for i, group in enumerate(listed)}
        for groups in (listed, tuple(listed), named, {**named, "another": "x"}):
            ax = draw(as_map(gaps), groups=groups)
            assert [t.get_text() for t in ax.get_legend().get_texts()] == ["cnn", "vit", "mlp"]
            looks = {(line.get_color(), line.get_marker()) for line in ax.lines}
            assert len(looks) == 3
        many = draw(as_map(squareform(pdist(np.arange(9.0)[:, None]))), groups=list("abcdefghi"))
        assert len({(line.get_color(), line.get_marker()) for line in many.lines}) == 9

    def test_it_draws_where_it_is_asked_to(self, draw):
        figure = Figure(layout="constrained")
        left, right = figure.subplots(1, 2)
        gaps = as_map(squareform(pdist(POINTS)))
        assert draw(gaps, right, title="Six nets") is right
        assert right.get_title() == "Six nets"
        assert not left.lines
        figure.savefig(io.BytesIO())

    def test_two_models(self, draw):
        draw(as_map(np.array([[0.0, 2.0], [2.0, 0.0]]))).figure.savefig(io.BytesIO())

    def test_a_diagonal_without_values(self, draw):
        gaps = squareform(pdist(POINTS))
        np.fill_diagonal(gaps, np.nan)
        draw(as_map(gaps)).figure.savefig(io.BytesIO())

    def test_refused_maps(self, draw):
        gaps = squareform(pdist(POINTS))
        lopsided, holed = gaps.copy(), gaps.copy()
        lopsided[0, 1] += 1
        holed[2, 4] = np.nan
        same = as_map(gaps)
        refused = {
            "must compare one set": same[:, ::-1],
            "of two or more": same[:1, :1],
            "every pair needs a value.*'net 2' with 'net 4'": as_map(holed),
            "must be symmetric": as_map(lopsided),
            "must not be negative": as_map(-gaps),
            "must say whether larger": as_map(gaps, None),
            "must have a known value": as_map(gaps, "similarity"),
            "must be a map with the dimensions": gaps,
            "has no variable with the dimensions": xr.Dataset({"a": ("x", [1.0])}),
        }
        for message, result in refused.items():
            with pytest.raises(InputError, match=rf"(?s)^{draw.__name__}: .*{message}"):
                draw(result)
        for groups in (["a"], {"net 0": "a"}, "cnnvits", 3):
            with pytest.raises(InputError, match="groups must give the group of each"):
                draw(same, groups=groups)
