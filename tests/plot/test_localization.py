from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from plot.results import localized
from report.pages import section_of, values_of
from repsim import InputError
from repsim.plot import localization


def own(ax):
    return [patch for patch in ax.patches if patch.get_gid() == "own patch"]


def test_maps_stand_where_their_tokens_are():
    result = localized(layers=1, grid=(3, 4))
    ax = localization(result)
    cka = result["cka"].values[0].reshape(13, 3, 4)
    assert len(ax.images) == 13
    places = []
    for image, values in zip(ax.images, [*cka[1:], cka[0]], strict=True):
        np.testing.assert_array_equal(image.get_array(), values)
        left, right, bottom, top = image.get_extent()
        assert (right - left, bottom - top) == pytest.approx((4, 3))
        places.append((top, left))
    assert places[:12] == sorted(places[:12])
    assert len({top for top, _ in places[:12]}) == 3
    assert len({left for _, left in places[:12]}) == 4
    assert places[12][1] < places[0][1]  # the prefix token


def test_order_of_tokens_and_patches_does_not_matter():
    result = localized(layers=1, grid=(3, 4))
    rng = np.random.default_rng(0)
    mixed = result.isel(token=rng.permutation(13), patch=rng.permutation(12))
    for one, two in zip(localization(result).images, localization(mixed).images, strict=True):
        np.testing.assert_array_equal(one.get_array(), two.get_array())
        assert one.get_extent() == two.get_extent()


def test_own_patch_is_framed():
    ax = localization(localized(layers=1, grid=(3, 4)))
    frames = own(ax)
    colours = ax.images[0].cmap
    others = np.array([colours.get_under(), *colours(np.linspace(0, 1, 64))])
    assert np.abs(others - frames[0].get_edgecolor()).sum(axis=1).min() > 0.5, "seen beside a map"
    assert len(frames) == 12
    for index, (frame, image) in enumerate(zip(frames, ax.images, strict=False)):
        row, column = divmod(index, 4)
        left, _, _, top = image.get_extent()
        assert frame.get_xy() == pytest.approx((left + column, top + row))
        assert image.get_array().argmax() == index


def test_no_frames_where_tokens_and_patches_have_other_grids():
    ax = localization(localized(layers=1, grid=(2, 2), patches=(4, 4), prefix=0))
    assert own(ax) == []
    assert [image.get_array().shape for image in ax.images] == [(4, 4)] * 4


def test_large_grids_are_thinned():
    result = localized()
    ax = localization(result, layer="blocks.0")
    assert len(ax.images) == 7 * 7 + 1
    cka = result["cka"].values[0, 1:].reshape(14, 14, 14, 14)
    np.testing.assert_array_equal(ax.images[8].get_array(), cka[2, 2])
    assert "every second row" in ax.get_title()
    all_of_them = localization(result, layer="blocks.0", every=1)
    assert len(all_of_them.images) == 197
    assert "every" not in all_of_them.get_title()


def test_title():
    result = localized(grid=(4, 4))
    assert localization(result, layer="blocks.1").get_title().splitlines() == [
        "blocks.1",
        "own patch (framed) most similar: 50.0% of tokens",
        "(by chance 6.2%)",
    ]
    result["hit_rate"][1] = np.nan
    assert "no token has a patch of its own" in localization(result, layer="blocks.1").get_title()


def test_scale():
    result = localized(layers=1, grid=(3, 4))
    ax = localization(result)
    norms = {(image.norm.vmin, image.norm.vmax) for image in ax.images}
    ((low, high),) = norms
    least = float(result["cka"].min())
    assert least - 1e-3 * high <= low <= least < 0  # the fade below 0, where the scale begins
    assert high == float(result["cka"].max())
    assert ax.images[0].colorbar.ax.get_ylabel() == "CKA with the patch (unbiased)"
    ax = localization(result, vmin=-1, vmax=1)
    assert (ax.images[3].norm.vmin, ax.images[3].norm.vmax) == (-1, 1)
    with pytest.raises(InputError, match="localization: vmin must be less than vmax"):
        localization(result, vmin=0.5, vmax=0.5)


def test_noise_is_dark_here_and_on_the_page():
    result = localized(layers=1, grid=(3, 4))
    noise = 0.03 * np.random.default_rng(0).uniform(-1, 1, result["cka"].shape)
    for low in (-0.03, -0.3):
        result["cka"].values = noise
        result["cka"][0, 3, 2] = low
        ax = localization(result)
        image = ax.images[0]
        dark = [each.cmap(each.norm(each.get_array()))[..., :3] for each in ax.images]
        assert (np.concatenate(dark).mean(axis=-1) > 0.2).sum() == (low < -0.1)
        assert image.colorbar.extend == ("min" if low < -0.1 else "neither")
        tiles = section_of("it", result).pictures[1]
        assert (tiles["low"], tiles["high"]) == (0.0, 0.2)
        assert image.get_clim() == pytest.approx((max(low, -0.1), 0.2), abs=1e-3)
        assert values_of(tiles, 0).min() == pytest.approx(low, abs=1e-3)  # where it points, too


def test_layers_of_fewer_tokens():
    result = localized(layers=2, grid=(4, 4))
    result["cka"][1, 5:] = np.nan
    for name in ("token_row", "token_column"):
        result[name][1, 5:] = np.nan
    result["token_row"][1, 1:5], result["token_column"][1, 1:5] = [0, 0, 1, 1], [0, 1, 0, 1]
    ax = localization(result, layer="blocks.1")
    assert len(ax.images) == 4 + 1
    assert own(ax) == []
    assert not [patch for patch in ax.patches if patch.get_hatch()]


def test_layers_of_fewer_patches():
    result = localized(layers=2, grid=(4, 4))
    result["cka"][1, :, 4:] = np.nan
    for name in ("patch_row", "patch_column"):
        result[name][1, 4:] = np.nan
    result["patch_row"][1, :4], result["patch_column"][1, :4] = [0, 0, 1, 1], [0, 1, 0, 1]
    ax = localization(result, layer="blocks.1")
    assert not [patch for patch in ax.patches if patch.get_hatch()]
    for image, values in zip(ax.images, result["cka"].values[1, 1:], strict=False):
        np.testing.assert_array_equal(image.get_array(), values[:4].reshape(2, 2))


def test_frames_of_many_patches_leave_the_patch_to_be_seen():
    ax = localization(localized(layers=1, grid=(9, 9)), every=4)
    frame, image = own(ax)[2], ax.images[2]
    left, _, _, top = image.get_extent()
    row, column = np.argwhere(image.get_array() == image.get_array().max())[0]
    assert frame.get_xy() == pytest.approx((left + column - 1, top + row - 1))
    assert frame.get_width() == frame.get_height() == 3


def test_undefined_token_is_hatched():
    result = localized(layers=1, grid=(3, 3))
    result["cka"][0, 5] = np.nan
    ax = localization(result)
    FigureCanvasAgg(ax.figure).draw()
    (hatched,) = [patch for patch in ax.patches if patch.get_hatch()]
    assert hatched.get_x() == pytest.approx(ax.images[4].get_extent()[0])


def test_everything_undefined():
    result = localized(layers=1, grid=(3, 3))
    result["cka"][:] = np.nan
    FigureCanvasAgg(localization(result).figure).draw()


def test_a_prefix_token_is_one_by_its_flag():
    result = localized(layers=1, grid=(3, 3))
    for name in ("token_row", "token_column"):
        result[name][:, 0] = 7
    ax = localization(result)
    np.testing.assert_array_equal(ax.images[0].get_array().ravel(), result["cka"].values[0, 1])
    np.testing.assert_array_equal(ax.images[-1].get_array().ravel(), result["cka"].values[0, 0])
    assert len(ax.images) == 10


def test_registers():
    ax = localization(localized(layers=1, grid=(3, 3), prefix=5))
    assert [text.get_text() for text in ax.texts] == [f"prefix {i}" for i in range(5)]
    bottoms = [image.get_extent()[2] for image in ax.images[-5:]]
    assert max(bottoms) <= ax.get_ylim()[0] + 1e-9
    assert bottoms == sorted(bottoms)


@pytest.mark.parametrize("size", [(2, 2), (8, 6)])
def test_given_axes(size):
    ax = Figure(figsize=size, layout="constrained").subplots()
    assert localization(localized(), ax, "blocks.0") is ax
    FigureCanvasAgg(ax.figure).draw()
    assert ax.get_aspect() == 1


class TestErrors:
    @pytest.mark.parametrize("layer", [None, "head"])
    def test_layer(self, layer):
        with pytest.raises(InputError, match=r"(?s)^localization: layer must name one.*blocks\.1"):
            localization(localized(), layer=layer)

    def test_places_are_missing(self):
        with pytest.raises(InputError, match=r"(?s)must have the places.*missing: token_row"):
            localization(localized(layers=1).drop_vars("token_row"))

    def test_a_pooled_layer(self):
        result = localized(layers=1, grid=(3, 3))
        result["token_row"][:] = np.nan
        with pytest.raises(InputError, match=r"layer must have tokens with a place"):
            localization(result)

    def test_every(self):
        for every in (0, "2", 1.5):
            with pytest.raises(InputError, match=r"every must be a positive integer"):
                localization(localized(layers=1), every=every)

    def test_ends_of_the_scale(self):
        for name in ("vmin", "vmax"):
            with pytest.raises(InputError, match=f"{name} must be a finite number"):
                localization(localized(layers=1), **{name: "0"})


def test_result_is_a_selection():
    result = localized()
    assert isinstance(result, xr.Dataset)
    ax = localization(result.sel(layer=["blocks.1"]))
    assert ax.get_title().startswith("blocks.1\n")


def test_a_video_across_its_frames():
    """Two frames of tokens on four frames of patches, two rows of tokens on four of patches."""
    tokens, patches = np.indices((2, 2, 1)).reshape(3, -1), np.indices((4, 4, 1)).reshape(3, -1)
    cka = np.random.default_rng(0).random((1, 5, 17))  # a prefix token, and a patch without a place
    places = {
        f"{side}_{axis}": (("layer", side), np.concatenate(parts)[None])
        for side, at, none in (("token", tokens, "first"), ("patch", patches, "last"))
        for axis, row in zip(("frame", "row", "column"), 1.0 * at, strict=True)
        for parts in [([np.nan], row) if none == "first" else (row, [-1.0])]
    }
    places["is_prefix"] = (("layer", "token"), np.arange(5)[None] == 0)
    shares = {"hit_rate": ("layer", [0.5]), "argmax_time_distance": ("layer", [1.25])}
    result = xr.Dataset(
        {"cka": (("layer", "token", "patch"), cka), **shares}, {"layer": ["blocks.0"], **places}
    )
    ax = localization(result, across="time")
    ax.figure.draw_without_rendering()
    # The row of tokens r lies on the row 2r + 1 of patches; frames are the outer axis of both.
    values = cka[0, 1:, :16].reshape(2, 2, 4, 4)
    expected = (values[:, 0, :, 1] + values[:, 1, :, 3]) / 2
    np.testing.assert_allclose(ax.images[0].get_array(), expected)
    framed = [each.get_xy() for each in ax.patches if each.get_gid() == "own frame"]
    assert framed == [(1, 0), (3, 1)]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("frame of the patch", "frame of the token")
    assert "1.25 frames of the input away" in ax.get_title()
    with pytest.raises(InputError, match="every frame"):
        localization(result, across="time", every=2)
    with pytest.raises(InputError, match="not of a video"):
        localization(localized(layers=1), across="time")
