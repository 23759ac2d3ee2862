"""XRO, the extended nonlinear recharge oscillator: climate indices drive each other.

    dX_i/dt = sum_j L_ij(t) X_j + sum_p N_ip(t) X_a(p) X_b(p) + s_i(month) r_i
    r_i <- a_i r_i + sqrt(1 - a_i^2) w,   w ~ N(0, 1) once a month

X holds monthly anomalies of the indices, t is time in years. L and N have a mean, an
annual and a semi-annual harmonic. Each equation is fitted alone, by ordinary least
squares of 12 (X[m + 1] - X[m]) on the regressors of month m, at t = m / 12. In a
forecast the coefficients are those of the current month at t less half a month, and a
month is ten explicit Euler steps, whose mean is its value.

Calendar months are integers, 0 = January. A month is that of the known state; the first
forecast month follows it.

Reference:
    Zhao et al. 2024, "Explainable El Nino predictability from climate mode
    interactions", Nature. https://doi.org/10.1038/s41586-024-07534-6
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from earthformer_jax.statistics.linear_system import MONTHS, harmonics_of

# The indices, as the authors' file of ORAS5 names them.
NINO34, WARM_WATER, DIPOLE = "Nino34", "WWV", "IOD"
INDICES = (NINO34, WARM_WATER, "NPMM", "SPMM", "IOB", DIPOLE)
INDICES += ("SIOD", "TNA", "ATL3", "SASD")

HARMONICS = 2  # the annual cycle and its half
STEPS = 10  # Euler steps in a month
ROWS_PER_COEFFICIENT = 2  # fewer months than this are too few


@dataclasses.dataclass(frozen=True)
class Product:
    """A nonlinear term: the product of two indices in the equation of one.

    Attributes:
        equation: index whose change it adds to.
        first, second: indices that are multiplied.
    """

    equation: str
    first: str
    second: str


# Of the published model: T^2 and T h in the equation of T, and IOD^2 in its own.
NONLINEAR = (
    Product(NINO34, NINO34, NINO34),
    Product(NINO34, NINO34, WARM_WATER),
    Product(DIPOLE, DIPOLE, DIPOLE),
)


@dataclasses.dataclass(frozen=True, eq=False)
class XRO:
    """A fitted system of n indices; k harmonics have q = 1 + 2 k coefficients.

    Attributes:
        names: of the indices.
        products: p nonlinear terms.
        linear: `[n, n, q]` per year: of the equation, of the index, of the harmonic.
        nonlinear: `[p, q]` per year and unit.
        noise_std: `[12, n]`, s_i of each calendar month, per year.
        noise_memory: `[n]`, a_i, from one month to the next.
    """

    names: tuple[str, ...]
    products: tuple[Product, ...]
    linear: np.ndarray
    nonlinear: np.ndarray
    noise_std: np.ndarray
    noise_memory: np.ndarray

    def forecast(
        self, state, month, leads: int, rng: np.random.Generator | None = None
    ) -> np.ndarray:
        """Forecasts the months after a known one.

        Args:
            state: `[b, n]`, anomalies of the known month.
            month: `[b]`, its calendar month.
            leads: months to forecast.
            rng: draws the noise; None: a deterministic forecast.

        Returns:
            `[b, leads, n]` monthly means.

        Raises:
            ValueError: if the shape does not match, or a forecast grows without bound.
        """
        x, month = np.array(state, np.float64), np.asarray(month)
        n = len(self.names)
        if x.ndim != 2 or x.shape[1] != n or month.shape != x.shape[:1]:
            raise ValueError(
                f"`state` of shape {x.shape} and `month` of shape {month.shape} do "
                f"not match: expected (b, {n}) and (b,)"
            )
        red = None if rng is None else rng.standard_normal(x.shape)
        means = []
        for _ in range(leads):
            waves = _waves(month - 0.5, self.linear.shape[-1])
            linear = np.einsum("bq,ijq->bij", waves, self.linear)
            nonlinear = waves @ self.nonlinear.T
            forcing = 0.0 if red is None else self.noise_std[month % MONTHS] * red
            total = np.zeros_like(x)
            with np.errstate(over="ignore", invalid="ignore"):  # reported below
                for _ in range(STEPS):
                    change = np.einsum("bij,bj->bi", linear, x) + forcing
                    for p, product in enumerate(self.products):
                        i, a, b = self._places(product)
                        change[:, i] += nonlinear[:, p] * x[:, a] * x[:, b]
                    x = x + change / (MONTHS * STEPS)
                    total += x
            means.append(total / STEPS)
            month = month + 1
            if red is not None and rng is not None:
                kept, new = self.noise_memory, rng.standard_normal(x.shape)
                red = kept * red + np.sqrt(1 - kept**2) * new
        forecast = np.stack(means, axis=1) if means else np.empty((len(x), 0, n))
        if not np.all(np.isfinite(forecast)):
            raise ValueError(
                f"a forecast of {leads} months grows without bound: the nonlinear "
                "terms do not hold for such a state; use fewer leads or `products=()`"
            )
        return forecast

    def _places(self, product: Product) -> tuple[int, int, int]:
        return _places(product, self.names)


def fit(
    series,
    first_month,
    names: Sequence[str] = INDICES,
    *,
    products: Sequence[Product] = (),
    harmonics: int = HARMONICS,
) -> XRO:
    """Fits a system to monthly anomalies.

    Args:
        series: `[m, n]` of consecutive months, or a list of such series.
        first_month: calendar month of the first row; a list for a list of series.
        names: n names of the columns.
        products: nonlinear terms; `NONLINEAR` for the published model.
        harmonics: annual harmonics of every coefficient.

    Raises:
        ValueError: if series and names do not match, values are not finite, a product
            names an unknown index, or there are too few months.
    """
    names, products = tuple(names), tuple(products)
    if isinstance(series, np.ndarray) and series.ndim == 2:
        series, first_month = [series], [first_month]
    series = [np.asarray(x, np.float64) for x in series]
    for x in series:
        if x.ndim != 2 or x.shape[1] != len(names):
            raise ValueError(
                f"a series of shape {x.shape} does not match {len(names)} names; "
                f"expected (months, {len(names)})"
            )
        if not np.all(np.isfinite(x)):
            raise ValueError("a series has months that are not finite")
    places = [_places(product, names) for product in products]
    count = 1 + 2 * harmonics
    starts = zip(series, first_month, strict=True)
    months = [start + np.arange(max(len(x) - 1, 0)) for x, start in starts]
    month = np.concatenate(months)
    state = np.concatenate([x[:-1] for x in series])
    change = np.concatenate([MONTHS * np.diff(x, axis=0) for x in series])
    waves = _waves(month, count)

    n = len(names)
    most = n + max((sum(i == e for e, _, _ in places) for i in range(n)), default=0)
    if len(month) < ROWS_PER_COEFFICIENT * most * count:
        raise ValueError(
            f"{len(month)} months are too few for {most * count} coefficients of an "
            f"equation: at least {ROWS_PER_COEFFICIENT * most * count} are needed; use "
            "fewer indices or harmonics"
        )
    linear, nonlinear = np.empty((n, n, count)), np.empty((len(products), count))
    residual = np.empty_like(change)
    for i in range(n):
        own = [p for p, (equation, _, _) in enumerate(places) if equation == i]
        pairs = [state[:, places[p][1]] * state[:, places[p][2]] for p in own]
        regressors = np.column_stack([state, *pairs])
        columns = np.einsum("mr,mq->mrq", regressors, waves).reshape(len(month), -1)
        fitted = np.linalg.lstsq(columns, change[:, i], rcond=None)[0]
        residual[:, i] = change[:, i] - columns @ fitted
        fitted = fitted.reshape(-1, count)
        linear[i], nonlinear[own] = fitted[:n], fitted[n:]
    by_month = [residual[month % MONTHS == m] for m in range(MONTHS)]
    lengths = np.cumsum([len(m) for m in months])[:-1]
    return XRO(
        names,
        products,
        linear,
        nonlinear,
        np.stack([np.std(x, axis=0) for x in by_month]),
        _red(np.split(residual, lengths)),
    )


def _places(product: Product, names: Sequence[str]) -> tuple[int, int, int]:
    """Columns of the equation and of both factors."""
    wanted = (product.equation, product.first, product.second)
    for name in wanted:
        if name not in names:
            raise ValueError(
                f"the product {product.first} {product.second} in the equation of "
                f"{product.equation} needs {name!r}, which is not among the indices "
                f"{', '.join(names)}"
            )
    equation, first, second = map(list(names).index, wanted)
    return equation, first, second


def _waves(month, count: int) -> np.ndarray:
    """1, cos, sin, cos 2, ... `[m, count]` at a month, which need not be whole."""
    return harmonics_of(month, (count - 1) // 2)


def _red(residuals: Sequence[np.ndarray]) -> np.ndarray:
    """Red noise coefficient `[n]`: the mean of acf(1) and of the root of acf(2).

    The means of the residuals are zero up to the fit. A correlation that is negative is
    taken as none, since noise with such a memory has no root.
    """
    variance = sum(np.sum(r**2, axis=0) for r in residuals)
    variance = np.where(variance > 0, variance, 1.0)
    roots = []
    for lag in (1, 2):
        product = sum(np.sum(r[lag:] * r[:-lag], axis=0) for r in residuals)
        correlation = np.clip(product / variance, 0.0, 1.0)
        roots.append(correlation ** (1 / lag))
    return np.mean(roots, axis=0)
