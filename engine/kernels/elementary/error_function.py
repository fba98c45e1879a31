"""erf, erfc.

erf: near 0, x + x P(x**2). Elsewhere 1 - e**-R(|x|); R = -log(erfc) is close to a parabola, so a polynomial does,
without a division. Its absolute error is what counts, and the larger x is, the less it matters.

erfc a, a >= 0: e**(-a**2) G(u) / (a + K) with u = (K - a) / (K + a), which maps all a to (-1, 1], where G is so smooth
that one polynomial serves (Shepherd, Laframboise, "Chebyshev approximation of (1 + 2x) exp(x**2) erfc x in 0 <= x <
infinity", 1981, with another factor in front, so that one division does for both). a**2 is computed to twice the
digits, for what its rounding loses would be a relative error of the whole result.
"""
import math

from engine.kernels.elementary.dtypes import both, compiled, plain
from engine.kernels.elementary.exponential import power_of_e, reduced, scale_of, scaled
from engine.kernels.elementary.words import absolute, fused, polynomial, where, with_sign

K = 3.0
ERF_ODD = both((0.12837917, -0.3761259, 0.11282871, -0.026807668, 0.0050584613, -0.00063533225),
               (0.12837916709551256, -0.37612638903183315, 0.11283791670931734, -0.02686617064014478,
                0.0052239775704822754, -0.0008548323472920189, 0.00012055189426744316, -1.492190610210624e-05,
                1.639895987075386e-06, -1.5696152099157775e-07, 1.0673252709937829e-08))
ERF_FAR = both((9.339744e-05, 1.1281126, 0.63642174, 0.104621276, -0.022570318, 0.0031321633, -0.00020529548),
               (3.722420206305137e-08, 1.1283787677957051, 0.6366217171965762, 0.10276698339769581,
                -0.019118023789234825, -0.0002211794216195772, 0.0017016939613381879, -0.0005816046032919145,
                3.1499169485668545e-06, 9.358046632120742e-05, -5.535762704866115e-05, 2.0166671594973213e-05,
                -5.348624167736839e-06, 1.0732726333029755e-06, -1.627125483131686e-07, 1.8150419110055485e-08,
                -1.4087487377990665e-09, 6.801142702417807e-11, -1.53798978338584e-12))
ERFC_SCALED = both((1.0740069, 0.8833945, 0.59022814, 0.31046614, 0.11952992, 0.026838899, -0.0012275464,
                    -0.0030784272, -0.00048403104, 0.0003255128),
                   (1.0740069070883398, 0.8833944531698836, 0.5902283571040909, 0.3104672619005659,
                    0.11952776128769252, 0.026827234624532965, -0.0012124166341663043, -0.0030340620017659226,
                    -0.0005483096241432971, 0.00027677784691708407, 0.00010756108318473934, -3.03981331712676e-05,
                    -1.746902208320199e-05, 4.7489704476079814e-06, 2.761543628091452e-06, -9.978809177619063e-07,
                    -4.0179756082766866e-07, 2.3120594472692116e-07, 4.000277301001403e-08, -4.7457278546126096e-08,
                    2.1863421523226144e-09, 5.986869449013563e-09, -1.4501254703941012e-09))


def erf(x):
    """2/sqrt(pi) times the integral of exp(-t**2) from 0 to x"""
    return plain(math.erf, math.erf, x)


@compiled(erf)
def _(real):
    highest, = both((4,), (5.95,))[real]
    near, one, odd, far = real(0.85), real(1), ERF_ODD[real], ERF_FAR[real]

    def erf(x):
        a = absolute(x)
        a = where(a > highest, highest, a)
        r, _, t = reduced(-polynomial(a, far))
        return with_sign(where(a < near, a + a * polynomial(a * a, odd), one - power_of_e(r) * scale_of(t, 0)), x)
    return erf


def erfc(x):
    """1 - erf(x), with full relative accuracy for large x too"""
    return plain(math.erfc, math.erfc, x)


@compiled(erfc)
def _(real):
    highest, = both((11,), (28,))[real]
    k, twice_k, zero, one, two, series = real(K), real(2 * K), real(0), real(1), real(2), ERFC_SCALED[real]

    def erfc(x):
        a = absolute(x)
        a = where(a > highest, highest, a)
        d = one / (a + k)
        square = a * a
        r, lost, t = reduced(-square)
        r = r + (lost - fused(a, a, -square))
        y = scaled(d * polynomial(twice_k * d - one, series) * power_of_e(r), t)
        return where(x < zero, two - y, y)
    return erfc
