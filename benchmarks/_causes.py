"""Why a value differs from the formula, for `truth.py`: by call and regime, or by call."""

__all__ = ["CAUSES", "OURS"]

WIDE = "NaN by design, with a warning: the formula gives 1 for any data with as many features"

OURS: dict[tuple[str, str], str] = {
    ("cca", "n < p"): WIDE,
    ("linear_regression_r2", "n < p"): WIDE,
    ("eigenspace_overlap", "n < p"): WIDE,
}

FLOAT64 = "takes float64 only"
CANCELS = "products of features that are not centred cancel"
EPSILON = "its ε = 1e-4 in the denominator is not small"
ROUNDED = "rounding breaks ties of ranks"
ORDER = "the order of the samples breaks ties"
TINY = "values below an absolute threshold count as zero"
WIDTHS = "takes equal widths only"
RSATOOLBOX = 'compare of calc_rdm(·, "euclidean"), "{}"'

CAUSES: dict[tuple[str, str], str] = {
    ("cka_linear(X, Y)", ""): "its ε = 1e-12 in the denominator is not small",
    ('compare(a, b, method="cosine_cov")', ""): CANCELS,
    ("cka_from_features(x, y)", ""): f"{CANCELS}, and the value is cut to [0, 1]",
    ("hsic1 of gram(x), gram(y)", ""): EPSILON,
    ("hsic1 of gram(x), gram(y)", "mean 1e4"): CANCELS,
    ("hsic1 of gram(x), gram(y)", "float32, mean 1e3"): CANCELS,
    ("cka_debiased(X, Y)", ""): "Grams are centred before their diagonals are left out",
    ('cka_base(x, y, kernel="rbf")', ""): "torch's median is the lower of the two middle values",
    ("Hsic(bias=True).statistic(x, y)", ""): "a root, and the bandwidth of x serves y too",
    ("Hsic().statistic(x, y)", ""): "the bandwidth of x serves y too",
    **{
        (call, regime): FLOAT64
        for call in (
            "Hsic(bias=True).statistic(x, y)",
            "Hsic().statistic(x, y)",
            "Dcorr(bias=True).statistic(x, y)",
            "Dcorr().statistic(x, y)",
        )
        for regime in ("float32", "float32, mean 1e3")
    },
    **{
        (RSATOOLBOX.format(word), ""): CANCELS
        for word in ("spearman", "rho-a", "kendall", "tau-a", "corr", "cosine", "corr_cov")
    },
    ('spearmanr of pdist(·, "correlation")', ""): ROUNDED,
    ('compare of calc_rdm(·, "correlation"), "spearman"', ""): ROUNDED,
    ("rdm_similarity(X, Y)", ""): ROUNDED,
    ('correlate_rdms of compute_rdm(·, "correlation"), "spearman"', ""): ROUNDED,
    ('rdm_similarity(X, Y, metric="euclidean")', ""): TINY,
    ('NearestNeighbors(algorithm="brute") of unit rows', ""): ORDER,
    ('NearestNeighbors(algorithm="brute")', ""): ORDER,
    ("spatial.procrustes(x, y)[2]", ""): WIDTHS,
    ("procrustes_similarity(X, Y)", "scale 1e-15"): TINY,
    ("procrustes_similarity(X, Y)", "X, Y"): WIDTHS,
    ("√(‖x‖² + ‖y‖² − 2 s), s of orthogonal_procrustes", ""): WIDTHS,
    ("CanCorr(x, y).cancorr, centred", ""): "singular covariances raise",
    ("CanCorr(x, y).cancorr, centred", "scale 1e-15"): TINY,
}
