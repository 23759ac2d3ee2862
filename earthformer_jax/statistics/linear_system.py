"""Seasonally modulated linear stochastic systems, such as linear inverse models.

    x[t + 1] = A[m] x[t] + e[t],   e[t] ~ N(0, Q[m]),   m = calendar month of t
    y[t]     = H x[t] + d[t],      d[t] ~ N(0, R)

x is the state, y the observation. Everything about such a system is known in closed
form: its stationary covariances, its best forecast from any set of observed months, and
the skill of that forecast. Months are integers, 0 = January; a `start_month`
is always the calendar month of the first *forecast* month.

Reference:
    Penland and Sardeshmukh 1995, "The optimal growth of tropical sea surface
    temperature anomalies"; OrtizBeviá 1997 and Shin et al. 2021 for the
    cyclostationary form.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

MONTHS = 12
MAX_ANNUAL_FACTOR = 0.98  # a fitted system forgets at least 2 % within a year
MIN_RIDGE = 1e-9  # makes identical components solvable
MIN_NOISE_FRACTION = 1e-6  # of the mean innovation variance, keeps Q definite
SEASONAL_KERNEL = ((-1, 0.25), (0, 0.5), (1, 0.25))  # smooths Q over the months


def generator(seed: int, *key: int) -> np.random.Generator:
    """A random generator that depends only on (seed, key), on every machine."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, *key))))


def harmonics_of(month, count: int) -> np.ndarray:
    """Annual Fourier basis 1, cos, sin, cos 2, ... at `month`: `[..., 1 + 2 count]`."""
    angle = 2 * np.pi * np.asarray(month)[..., None] / MONTHS
    waves = [f(k * angle) for k in range(1, count + 1) for f in (np.cos, np.sin)]
    return np.concatenate([np.ones_like(angle), *waves], axis=-1)


@dataclasses.dataclass(frozen=True, eq=False, init=False)
class LinearSystem:
    """A cyclostationary linear Gaussian system (equations at the top of the file).

    Attributes:
        transition: `[12, n, n]`, A[m] takes month m to month m + 1.
        noise: `[12, n, n]`, covariance Q[m] of the noise added in that step.
        observation: `[q, n]`, H; the identity if None.
        observation_noise: `[q, q]`, covariance R; zero if None.

    Raises:
        ValueError: on inconsistent shapes, or if the system grows without bound.
    """

    transition: np.ndarray
    noise: np.ndarray
    observation: np.ndarray
    observation_noise: np.ndarray

    def __init__(
        self, transition, noise, observation=None, observation_noise=None
    ) -> None:
        a, q = np.asarray(transition, np.float64), np.asarray(noise, np.float64)
        n = a.shape[-1]
        h = np.eye(n) if observation is None else np.asarray(observation, np.float64)
        r = np.zeros((len(h), len(h)))
        if observation_noise is not None:
            r = np.asarray(observation_noise, np.float64)
        for name, x, shape in (
            ("transition", a, (MONTHS, n, n)),
            ("noise", q, (MONTHS, n, n)),
            ("observation", h, (len(h), n)),
            ("observation_noise", r, (len(h), len(h))),
        ):
            if x.shape != shape:
                raise ValueError(f"{name} has shape {x.shape}, expected {shape}")
            if not np.all(np.isfinite(x)):
                raise ValueError(f"{name} has values that are not finite")
            object.__setattr__(self, name, x)
        if (factor := annual_factor(a)) >= 1:
            raise ValueError(
                f"the system grows by {factor:.3f} a year; it has no stationary state"
            )

    @functools.cached_property
    def covariance(self) -> np.ndarray:
        """Stationary covariance of the state by calendar month, `[12, n, n]`."""
        from scipy import linalg  # slow; a trained model does not need it

        n = self.transition.shape[-1]
        year, forced = np.eye(n), np.zeros((n, n))
        for a, q in zip(self.transition, self.noise, strict=True):
            year, forced = a @ year, a @ forced @ a.T + q
        # January covers a whole year: S = year S year' + forced.
        covariances = [linalg.solve_discrete_lyapunov(year, forced)]
        for a, q in zip(self.transition[:-1], self.noise[:-1], strict=True):
            covariances.append(a @ covariances[-1] @ a.T + q)
        s = np.stack(covariances)
        return (s + s.swapaxes(-1, -2)) / 2

    def window_covariance(self, first_month: int, length: int) -> np.ndarray:
        """Covariance of `length` successive H x, without R: `[length q, length q]`."""
        q = len(self.observation)
        blocks = np.empty((length, q, length, q))
        for i in range(length):
            month = (first_month + i) % MONTHS
            column = self.covariance[month] @ self.observation.T
            for j in range(i, length):
                blocks[j, :, i] = self.observation @ column
                blocks[i, :, j] = blocks[j, :, i].T
                column = self.transition[(first_month + j) % MONTHS] @ column
        return blocks.reshape(length * q, length * q)

    @functools.lru_cache(maxsize=64)  # noqa: B019 (systems are few and long-lived)
    def regression(self, start_month: int, in_len: int, out_len: int) -> np.ndarray:
        """Operator of the conditional expectation given all observed months.

        Args:
            start_month: calendar month of the first forecast month, 0..11.
            in_len: observed months just before it.
            out_len: forecast months.

        Returns:
            `[out_len, q, in_len, q]`: E[H x(future) | y(past)] = operator : y(past).

        No linear (and, the system being Gaussian, no other) forecast from these months
        has a smaller mean square error.
        """
        return self._conditional(start_month, in_len, out_len)[0]

    @functools.lru_cache(maxsize=64)  # noqa: B019 (systems are few and long-lived)
    def error_covariance(self, start_month: int, in_len: int, out_len: int):
        """Covariance of the errors of the best possible forecast at each lead.

        Together with `conditional_forecast` it is the distribution of H x, given all
        observed months: a Gaussian whose covariance does not depend on them.

        Args:
            start_month, in_len, out_len: as for `regression`.

        Returns:
            `[out_len, q, q]`.
        """
        operator, joint = self._conditional(start_month, in_len, out_len)
        q = len(self.observation)
        past = in_len * q
        explained = operator.reshape(out_len * q, past) @ joint[:past, past:]
        errors = (joint[past:, past:] - explained).reshape(out_len, q, out_len, q)
        return np.stack([errors[k, :, k] for k in range(out_len)])

    def _conditional(self, start_month: int, in_len: int, out_len: int):
        """The operator of `regression`, and the covariance of all months of H x."""
        from scipy import linalg

        q = len(self.observation)
        past = in_len * q
        joint = self.window_covariance(start_month - in_len, in_len + out_len)
        observed = joint[:past, :past] + np.kron(np.eye(in_len), self.observation_noise)
        try:
            factor = linalg.cho_factor(observed)
            operator = linalg.cho_solve(factor, joint[:past, past:]).T
        except linalg.LinAlgError:  # directions without any variance
            operator = joint[past:, :past] @ linalg.pinvh(observed)
        return operator.reshape(out_len, q, in_len, q), joint

    def conditional_forecast(self, y, start_month, out_len: int) -> np.ndarray:
        """Best possible forecast of H x from observed months.

        Args:
            y: `[b, t, q]`, the t months before the forecast.
            start_month: `[b]`, calendar month of the first forecast month.
            out_len: forecast months.

        Returns:
            `[b, out_len, q]`.
        """
        y, start_month = np.asarray(y, np.float64), np.asarray(start_month)
        b, t, q = y.shape
        forecast = np.empty((b, out_len * q))
        for month in np.unique(start_month):
            chosen = start_month == month
            operator = self.regression(int(month), t, out_len)
            past = y[chosen].reshape(-1, t * q)
            forecast[chosen] = past @ operator.reshape(out_len * q, t * q).T
        return forecast.reshape(b, out_len, q)

    def forecast(self, x, start_month, out_len: int) -> np.ndarray:
        """Expected states after a known state: products of A, `[b, out_len, n]`.

        Args:
            x: `[b, n]`, state in the month before `start_month`.
            start_month: `[b]`, calendar month of the first forecast month.
            out_len: forecast months.
        """
        x, month = np.asarray(x, np.float64), np.asarray(start_month) - 1
        states = []
        for _ in range(out_len):
            x = np.einsum("bij,bj->bi", self.transition[month % MONTHS], x)
            month = month + 1
            states.append(x)
        return np.stack(states, axis=1)

    def simulate(
        self, rng: np.random.Generator, first_month: int, length: int, count: int = 1
    ) -> np.ndarray:
        """Draws `count` sequences of states from the stationary distribution.

        Returns:
            `[count, length, n]`; `observe` turns it into observations.
        """
        draws = rng.standard_normal((length, count, self.transition.shape[-1]))
        states = np.empty_like(draws)
        states[0] = draws[0] @ self.stationary_factor[first_month % MONTHS].T
        for i in range(1, length):
            month = (first_month + i - 1) % MONTHS
            states[i] = states[i - 1] @ self.transition[month].T
            states[i] += draws[i] @ self.noise_factor[month].T
        return states.swapaxes(0, 1)

    def observe(self, states, rng: np.random.Generator | None = None) -> np.ndarray:
        """H x of `[..., n]` states, with observation noise if `rng` is given."""
        y = np.asarray(states) @ self.observation.T
        if rng is not None and self.observation_noise.any():
            y = y + rng.standard_normal(y.shape) @ self._observation_factor.T
        return y

    @functools.cached_property
    def _observation_factor(self) -> np.ndarray:
        return _root(self.observation_noise)

    @functools.cached_property
    def noise_factor(self) -> np.ndarray:
        """`[12, n, n]`, from standard normal numbers to the noise of a month."""
        return _root(self.noise)

    @functools.cached_property
    def stationary_factor(self) -> np.ndarray:
        """`[12, n, n]`, from standard normal numbers to a state of a month."""
        return _root(self.covariance)

    @classmethod
    def fit(
        cls,
        series,
        first_month: int | Sequence[int],
        *,
        lags: int = 3,
        harmonics: int = 2,
        seasonal_ridge: float = 0.1,
        lag_ridge: float = 0.03,
    ) -> "LinearSystem":
        """Estimates a system from monthly series by penalised least squares.

            z[t + 1] = sum_l A_l[m] z[t - l],   A_l[m] = A_l0 + annual harmonics of m

        The state is (z[t], z[t - 1], ...), of which z[t] is observed. `lags=1,
        harmonics=0` is the plain linear inverse model (LIM). The defaults did best in
        cross-validation over the twenty-year blocks of 1900-1979 of observed Pacific
        temperature (12 EOFs, correlation of Nino3.4 at leads of 1 to 12 months).

        Args:
            series: `[months, k]` or a list of them.
            first_month: calendar month of the first row, one for all or one for each.
            lags: months of history in the state.
            harmonics: annual harmonics of A; 0 is no seasonal modulation.
            seasonal_ridge: penalty on the coefficients of the harmonics, in units of
                the variance of each predictor (their own mean square is half of it).
            lag_ridge: the same, for all months of history but the last.

        Raises:
            ValueError: if a series is too short for the number of coefficients.
        """
        series = _as_list(series)
        k = series[0].shape[1]
        rows, targets, months = _design(series, first_month, lags)
        basis = harmonics_of(months, harmonics)
        columns = np.einsum("rb,rlk->rlbk", basis, rows)
        shape = columns.shape[1:]
        columns = columns.reshape(len(columns), -1)
        penalty = np.zeros(shape)
        penalty[:, 1:] += seasonal_ridge
        penalty[1:] += lag_ridge
        free = int(np.sum(penalty == 0))
        if len(columns) < 2 * free:
            raise ValueError(
                f"{len(columns)} months are too few for {free} free coefficients of "
                "each component; use fewer components, lags or harmonics"
            )
        penalty += MIN_RIDGE
        penalty *= len(columns) * np.mean(rows[:, 0] ** 2, axis=0)
        gram = columns.T @ columns + np.diag(penalty.ravel())
        from scipy import linalg

        fitted = linalg.solve(gram, columns.T @ targets, assume_a="sym")
        residual = targets - columns @ fitted
        blocks = np.einsum(
            "mb,lbkj->mjlk",
            harmonics_of(np.arange(MONTHS), harmonics),
            fitted.reshape(*shape, k),
        )
        transition = np.zeros((MONTHS, lags * k, lags * k))
        transition[:, :k] = blocks.reshape(MONTHS, k, lags * k)
        transition[:, k:, :-k] = np.eye((lags - 1) * k)
        noise = np.zeros_like(transition)
        noise[:, :k, :k] = innovation_covariance(residual, months)
        return cls(stabilised(transition, k), noise, np.eye(k, lags * k))


def annual_factor(transition: np.ndarray) -> float:
    """Largest modulus by which any state is multiplied within a year."""
    year = functools.reduce(lambda total, a: a @ total, transition)
    return float(np.max(np.abs(np.linalg.eigvals(year))))


def stabilised(transition: np.ndarray, k: int) -> np.ndarray:
    """Damps lag l by g**l, with g <= 1 so that the annual factor is allowed."""
    g = min(1.0, (MAX_ANNUAL_FACTOR / annual_factor(transition)) ** (1 / MONTHS))
    damping = np.repeat(g ** np.arange(1, transition.shape[-1] // k + 1), k)
    damped = transition.copy()
    damped[:, :k] *= damping
    return damped


def innovation_covariance(residual: np.ndarray, months: np.ndarray) -> np.ndarray:
    """Residual covariance by month, smoothed and definite: `[12, k, k]`."""
    k = residual.shape[1]
    monthly = np.stack(
        [residual[months == m].T @ residual[months == m] for m in range(MONTHS)]
    )
    counts = np.bincount(months, minlength=MONTHS).astype(np.float64)
    total, weight = np.zeros_like(monthly), np.zeros_like(counts)
    for shift, share in SEASONAL_KERNEL:
        total += share * np.roll(monthly, shift, axis=0)
        weight += share * np.roll(counts, shift)
    if not weight.all():
        unknown = ", ".join(str(m + 1) for m in np.flatnonzero(weight == 0))
        raise ValueError(
            f"the months that follow calendar months {unknown} are never observed; "
            "the noise of these steps cannot be estimated"
        )
    floor = MIN_NOISE_FRACTION * np.mean(residual**2)
    return total / weight[:, None, None] + floor * np.eye(k)


def _design(series: Sequence[np.ndarray], first_month: int | Sequence[int], lags: int):
    """Predictors `[r, lags, k]` (newest first), targets `[r, k]`, their months `[r]`.

    The month is that of the newest predictor; no row reaches across two series.
    """
    rows, targets, months = [], [], []
    first_months = np.broadcast_to(first_month, len(series))
    for z, first in zip(series, first_months, strict=True):
        if len(z) <= lags:
            raise ValueError(f"a series of {len(z)} months cannot give {lags} lags")
        newest = np.arange(lags - 1, len(z) - 1)
        rows.append(np.stack([z[newest - lag] for lag in range(lags)], axis=1))
        targets.append(z[newest + 1])
        months.append((first + newest) % MONTHS)
    return np.concatenate(rows), np.concatenate(targets), np.concatenate(months)


def _as_list(series) -> list[np.ndarray]:
    if isinstance(series, np.ndarray) and series.ndim == 2:
        series = [series]
    series = [np.asarray(z, np.float64) for z in series]
    if not all(np.all(np.isfinite(z)) for z in series):
        raise ValueError("a series has months that are not finite")
    return series


def _root(covariance: np.ndarray) -> np.ndarray:
    """A factor F with F F' = covariance, semi-definite ones too: `[..., n, n]`."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0))[..., None, :]
