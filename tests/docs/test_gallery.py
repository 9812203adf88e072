"""Pictures of the gallery are saved in the width in which a page shows them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("sphinx_gallery")


@pytest.mark.parametrize("width", [4, 12])
def test_a_picture_is_no_wider_than_the_text(width, tmp_path, extensions):
    from matplotlib.figure import Figure

    import gallery_axes

    axes = Figure(figsize=(width, 2)).subplots(1, 2)
    for last_line in (axes, list(axes), axes[0], axes[0].figure):
        path = tmp_path / "picture.png"
        variables = {"example_globals": {"___": last_line}, "image_path_iterator": iter([path])}
        text = gallery_axes.axes_of_last_line(("", "", 0), variables, {"src_dir": str(tmp_path)})
        assert "picture.png" in text
        with Image.open(path) as picture:
            assert picture.width == min(144 * width, gallery_axes.SHOWN)
            assert np.ptp(np.asarray(picture)) > 0
