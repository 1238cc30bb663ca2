"""Quantiles of Student's t distribution, from a table where scipy would take long to import."""

from __future__ import annotations

# Student's t at 0.975, by degrees of freedom from 1 on.
_T_975 = (
    12.70620, 4.30265, 3.18245, 2.77645, 2.57058, 2.44691, 2.36462, 2.30600, 2.26216, 2.22814,
    2.20099, 2.17881, 2.16037, 2.14479, 2.13145, 2.11991, 2.10982, 2.10092, 2.09302, 2.08596,
    2.07961, 2.07387, 2.06866, 2.06390, 2.05954, 2.05553, 2.05183, 2.04841, 2.04523, 2.04227,
)  # fmt: skip
_Z_975 = 1.959963984540054
"""The 0.975 quantile of the normal distribution, which Student's t approaches."""


def t_quantile_975(degrees: int) -> float:
    """The value that 97.5 % of Student's t distribution lies below.

    From a table up to 30 degrees of freedom; above, the Cornish-Fisher expansion about the
    normal quantile (Abramowitz & Stegun 26.7.5) to the third order, whose error is below 1e-6.

    Args:
        degrees: degrees of freedom, 1 or more.
    """
    if degrees <= len(_T_975):
        return _T_975[degrees - 1]
    z = _Z_975
    return (
        z
        + (z**3 + z) / (4 * degrees)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * degrees**3)
    )


def t_above(degrees: int, tail: float) -> float:
    """The value that a share `tail` of the distribution lies above; without scipy for 0.025.

    Reports need 95 % intervals only, and are read more often than results are compared.
    """
    return t_quantile_975(degrees) if tail == 0.025 else t_quantile(degrees, 1 - tail)


def t_quantile(degrees: float, probability: float) -> float:
    """The value that this share of the distribution lies below."""
    # Lazy: scipy takes longer to import than a folder of records takes to read.
    from scipy.special import stdtrit

    return float(stdtrit(degrees, probability))
