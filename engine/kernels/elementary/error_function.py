"""erf, erfc.

erf: near 0, x + x P(x**2). Elsewhere 1 - e**-R(|x|); R = -log(erfc) is close to a parabola, so a polynomial does,
without a division. Its absolute error is what counts, and the larger x is, the less it matters.

erfc a, a >= 0: e**(-a**2) times a rational function, for e**(a**2) erfc a falls slowly and smoothly, like 1 / (a + 1):
all coefficients are positive, and no sum loses digits. -a**2 = n ln 2 + r is reduced with fused multiply-adds that take
a**2 exactly; its rounding error would be a relative error of the whole result.
"""
import math

from engine.kernels.elementary.dtypes import both, compiled, part, plain
from engine.kernels.elementary.exponential import (
    LN2,
    LOG2_E,
    power_of_e,
    reduced,
    rounder_of,
    scale_of,
    scaled,
    whole_part,
)
from engine.kernels.elementary.words import absolute, fused, polynomial, where, with_sign

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
ERFC_TOP = both((1.0, 1.2371639, 0.73024946, 0.22855353, 0.032649368),
                (1.0, 2.3389637553982774, 2.712305880762161, 2.014721820775104, 1.0516796635149481, 0.4012660698446114,
                 0.1131787731401685, 0.023330122060338482, 0.0033764421694133934, 0.000311970008725471,
                 1.4145707412746866e-05))
ERFC_BOTTOM = both((1.0, 2.3655436, 2.3994708, 1.322832, 0.40512738, 0.057868786),
                   (1.0, 3.46734292249379, 5.6247833996802115, 5.646520083969088, 3.906630239114198,
                    1.9613947496522388, 0.7316248993206019, 0.20358390984061078, 0.04162804091310187,
                    0.005997124232248165, 0.0005529524433335253, 2.5072613577499525e-05))


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


@part
def reduced_square(real):
    factor, rounder = real(LOG2_E), rounder_of(real)
    high, low = LN2[real]

    def reduced_square(a):
        """(r, t): -a**2 = n ln 2 + r, and t holds n (plus the biases)"""
        t = rounder - a * a * factor
        n = whole_part(t)
        return fused(-a, a, -(n * high)) - n * low, t
    return reduced_square


@compiled(erfc)
def _(real):
    highest, = both((11,), (28,))[real]
    zero, two, top, bottom = real(0), real(2), ERFC_TOP[real], ERFC_BOTTOM[real]

    def erfc(x):
        a = absolute(x)
        a = where(a > highest, highest, a)
        fraction = polynomial(a, top) / polynomial(a, bottom)          # does not wait for the exponential
        r, t = reduced_square(a)
        y = scaled(fraction * power_of_e(r), t)
        return where(x < zero, two - y, y)
    return erfc
