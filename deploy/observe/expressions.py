"""Expressions that dashboards are made of; each looks at the release that the reader has chosen."""

from __future__ import annotations

HERE = 'namespace=~"$namespace"'
SERVICES = 'component=~"gateway|visual|audio|fusion"'
RATE = "$__rate_interval"
"""A window that holds a few scrapes at any zoom; Grafana fills it in."""


def rate(metric: str, by: str, where: str = HERE) -> str:
    """Summed rate of a counter by some labels."""
    return f"sum by ({by}) (rate({metric}{{{where}}}[{RATE}]))"


def total(metric: str, where: str = HERE) -> str:
    """Rate of a counter over everything."""
    return f"sum(rate({metric}{{{where}}}[{RATE}]))"


def quantile(share: float, histogram: str, by: str = "", where: str = HERE) -> str:
    """A quantile of a histogram by some labels."""
    labels = f"{by}, le" if by else "le"
    return f"histogram_quantile({share:g}, {rate(f'{histogram}_bucket', labels, where)})"


def mean(total: str, count: str, by: str) -> str:
    """Mean of what Triton adds up in microseconds, seconds."""
    return f"{rate(total, by)} / {rate(count, by)} / 1e6"
