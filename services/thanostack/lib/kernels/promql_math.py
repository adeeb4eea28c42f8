"""Elementary functions with the bits that Prometheus has on amd64: Go's algorithms, not libm's.

    exp          Shibata's Taylor series with fused multiply-add, as Go's assembly runs it
    log, log1p   FreeBSD's argument reduction and polynomial
    pow          successive squarings of the mantissa; exp and log for the fraction only
    sin, cos, tan, atan, asin, acos, sinh, cosh, tanh    Cephes
    asinh, acosh, atanh   from log and log1p

Deliberately left to libm: sin, cos and tan from 2**29 on, where Go reduces by a table of pi.

Sources: Go `math` (and the papers and libraries that it names); Cephes; FreeBSD msun.
"""

import math
from fractions import Fraction

import numpy as np

from thanostack.lib.kernels._jit import device
from thanostack.lib.kernels.wide import bits_float, float_bits

_LN2_HI = 6.93147180369123816490e-01
_LN2_LO = 1.90821492927058770002e-10
_LOG_1, _LOG_2, _LOG_3 = (
    6.666666666666735130e-01,
    3.999999999940941908e-01,
    2.857142874366239149e-01,
)
_LOG_4, _LOG_5 = 2.222219843214978396e-01, 1.818357216161805012e-01
_LOG_6, _LOG_7 = 1.531383769920937332e-01, 1.479819860511658591e-01
_PI4_A, _PI4_B, _PI4_C = (
    7.85398125648498535156e-1,
    3.77489470793079817668e-8,
    2.69515142907905952645e-15,
)
_TRIG_LIMIT = 536870912.0
_LN2 = 0.693147180559945309417232121458176568
# Quotients of exact constants, rounded once as Go's compiler does it.
_PER_LN2 = 1.44269504088896340735992468100189214
_PER_LN10 = 0.434294481903251827651128918916605082


def fma(a, b, c):
    """Return a * b + c rounded once; all finite."""
    return float(Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c)))


@device
def _power_of_two(exponent):
    """Return 2**exponent for -1022 <= exponent <= 1023."""
    return bits_float(np.uint64(exponent + 1023) << np.uint64(52))


@device
def go_exp(x):
    """Return e**x."""
    if math.isnan(x) or x == np.inf:
        return x
    if x == -np.inf:
        return 0.0
    if x > 7.09782712893384e02:
        return np.inf
    scaled = x * 1.4426950408889634073599246810018920
    if scaled < -1100.0:
        return 0.0
    exponent = np.int64(np.rint(scaled))
    n = np.float64(exponent)
    r = fma(-n, 0.69314718055966295651160180568695068359375, x)
    r = fma(-n, 0.28235290563031577122588448175013436025525412068e-12, r)
    r *= 0.0625
    p = 2.4801587301587301587e-5
    p = fma(p, r, 1.9841269841269841270e-4)
    p = fma(p, r, 1.3888888888888888889e-3)
    p = fma(p, r, 8.3333333333333333333e-3)
    p = fma(p, r, 4.1666666666666666667e-2)
    p = fma(p, r, 1.6666666666666666667e-1)
    p = fma(p, r, 0.5)
    p = fma(p, r, 1.0)
    r *= p
    r *= r + 2.0
    r *= r + 2.0
    r *= r + 2.0
    r = fma(r, r + 2.0, 1.0)
    if exponent >= 1024:
        return np.inf
    if exponent > -1023:
        return r * _power_of_two(exponent)
    if exponent < -1075:
        return 0.0
    # Below the normal range: in two steps, so that the second one rounds.
    return r * _power_of_two(exponent + 1022) * _power_of_two(np.int64(-1022))


@device
def _log_polynomial(s):
    s2 = s * s
    s4 = s2 * s2
    t1 = s2 * (_LOG_1 + s4 * (_LOG_3 + s4 * (_LOG_5 + s4 * _LOG_7)))
    t2 = s4 * (_LOG_2 + s4 * (_LOG_4 + s4 * _LOG_6))
    return t1 + t2


@device
def go_log(x):
    """Return the natural logarithm."""
    if math.isnan(x) or x == np.inf:
        return x
    if x < 0:
        return np.nan
    if x == 0:
        return -np.inf
    # As the assembly does it: the exponent field is taken as it is, subnormal or not.
    b = float_bits(x)
    f1 = bits_float((b & np.uint64(0x000FFFFFFFFFFFFF)) | np.uint64(0x3FE0000000000000))
    k = np.float64(np.int64((b >> np.uint64(52)) & np.uint64(0x7FF)) - np.int64(0x3FE))
    if f1 < 7.07106781186547524401e-01:
        k -= 1.0
        f1 *= 2.0
    f = f1 - 1.0
    s = f / (2.0 + f)
    r = _log_polynomial(s)
    hfsq = 0.5 * f * f
    return k * _LN2_HI - ((hfsq - (s * (hfsq + r) + k * _LN2_LO)) - f)


@device
def go_log2(x):
    """Return the binary logarithm; powers of two are exact."""
    fraction, exponent = math.frexp(x)
    if fraction == 0.5:
        return np.float64(exponent - 1)
    if math.isnan(x) or math.isinf(x) or x <= 0:
        return go_log(x)
    return go_log(fraction) * _PER_LN2 + np.float64(exponent)


@device
def go_log10(x):
    """Return the decimal logarithm."""
    return go_log(x) * _PER_LN10


@device
def _log1p_tail(f, k, c, tiny):
    hfsq = 0.5 * f * f
    if tiny:
        if f == 0:
            return 0.0 if k == 0 else k * _LN2_HI + (c + k * _LN2_LO)
        r = hfsq * (1.0 - 0.66666666666666666 * f)
        return f - r if k == 0 else k * _LN2_HI - ((r - (k * _LN2_LO + c)) - f)
    s = f / (2.0 + f)
    z = s * s
    r = z * (
        _LOG_1
        + z * (_LOG_2 + z * (_LOG_3 + z * (_LOG_4 + z * (_LOG_5 + z * (_LOG_6 + z * _LOG_7)))))
    )
    if k == 0:
        return f - (hfsq - s * (hfsq + r))
    return k * _LN2_HI - ((hfsq - (s * (hfsq + r) + (k * _LN2_LO + c))) - f)


@device
def go_log1p(x):
    """Return log(1 + x) for x > -1."""
    absolute = abs(x)
    if absolute < 1.0 / 536870912:
        return x if absolute < 1.0 / 18014398509481984 else x - x * x * 0.5
    if -2.928932188134524755992e-01 < x < 4.142135623730950488017e-01:
        return _log1p_tail(x, 0.0, 0.0, False)
    c = 0.0
    u = x
    if absolute < 9007199254740992.0:
        u = 1.0 + x
    b = float_bits(u)
    k = np.int64(b >> np.uint64(52)) - 1023
    if absolute < 9007199254740992.0:
        c = (1.0 - (u - x) if k > 0 else x - (u - 1.0)) / u
    b &= np.uint64(0x000FFFFFFFFFFFFF)
    if b < np.uint64(0x0006A09E667F3BCD):
        u = bits_float(b | np.uint64(0x3FF0000000000000))
    else:
        k += 1
        u = bits_float(b | np.uint64(0x3FE0000000000000))
        b = (np.uint64(0x0010000000000000) - b) >> np.uint64(2)
    return _log1p_tail(u - 1.0, np.float64(k), c, b == np.uint64(0))


@device
def _special_power(x, y):
    """Return (x**y, True) where no multiplication is needed, else (0, False)."""
    if y == 0 or x == 1:
        return 1.0, True
    if y == 1:
        return x, True
    if math.isnan(x) or math.isnan(y):
        return np.nan, True
    if x == 0 or math.isinf(x) or math.isinf(y) or abs(y) >= 9223372036854775808.0:
        # Here libm and Go both follow C99.
        return math.pow(x, y), True
    if y == 0.5:
        return math.sqrt(x), True
    if y == -0.5:
        return 1.0 / math.sqrt(x), True
    return 0.0, False


@device
def go_pow(x, y):
    """Return x**y."""
    special, done = _special_power(x, y)
    if done:
        return special
    whole = math.floor(abs(y))
    rest = abs(y) - whole
    if rest != 0 and x < 0:
        return np.nan
    a = 1.0
    exponent = np.int64(0)
    if rest != 0:
        if rest > 0.5:
            rest -= 1.0
            whole += 1.0
        a = go_exp(rest * go_log(x))
    mantissa, e = math.frexp(x)
    power = np.int64(e)
    i = np.int64(whole)
    while i != 0:
        if power < -4096 or power > 4096:
            exponent += power
            break
        if i & 1 == 1:
            a *= mantissa
            exponent += power
        mantissa *= mantissa
        power <<= 1
        if mantissa < 0.5:
            mantissa += mantissa
            power -= 1
        i >>= 1
    if y < 0:
        a = 1.0 / a
        exponent = -exponent
    return math.ldexp(a, np.int32(max(min(exponent, 5000), -5000)))


@device
def _octant(x):
    """Return (octant of x, x reduced to [-pi/4, pi/4]); 0 <= x < 2**29."""
    j = np.int64(x * (4 / math.pi))
    y = np.float64(j)
    if j & 1 == 1:
        j += 1
        y += 1.0
    return j, ((x - y * _PI4_A) - y * _PI4_B) - y * _PI4_C


@device
def _sine(z):
    zz = z * z
    p = ((1.58962301576546568060e-10 * zz) + -2.50507477628578072866e-8) * zz
    p = ((p + 2.75573136213857245213e-6) * zz + -1.98412698295895385996e-4) * zz
    return z + z * zz * ((p + 8.33333333332211858878e-3) * zz + -1.66666666666666307295e-1)


@device
def _cosine(z):
    zz = z * z
    p = ((-1.13585365213876817300e-11 * zz) + 2.08757008419747316778e-9) * zz
    p = ((p + -2.75573141792967388112e-7) * zz + 2.48015872888517045348e-5) * zz
    p = (p + -1.38888888888730564116e-3) * zz + 4.16666666666665929218e-2
    return 1.0 - 0.5 * zz + zz * zz * p


@device
def go_sin(x):
    """Return the sine."""
    if x == 0 or not abs(x) < _TRIG_LIMIT:
        return math.sin(x)
    j, z = _octant(abs(x))
    j &= 7
    sign = x < 0
    if j > 3:
        sign = not sign
        j -= 4
    y = _cosine(z) if j == 1 or j == 2 else _sine(z)
    return -y if sign else y


@device
def go_cos(x):
    """Return the cosine."""
    if not abs(x) < _TRIG_LIMIT:
        return math.cos(x)
    j, z = _octant(abs(x))
    j &= 7
    sign = False
    if j > 3:
        j -= 4
        sign = not sign
    if j > 1:
        sign = not sign
    y = _sine(z) if j == 1 or j == 2 else _cosine(z)
    return -y if sign else y


@device
def go_tan(x):
    """Return the tangent."""
    if x == 0 or not abs(x) < _TRIG_LIMIT:
        return math.tan(x)
    j, z = _octant(abs(x))
    zz = z * z
    y = z
    if zz > 1e-14:
        p = ((-1.30936939181383777646e4 * zz) + 1.15351664838587416140e6) * zz
        p += -1.79565251976484877988e7
        q = ((zz + 1.36812963470692954678e4) * zz + -1.32089234440210967447e6) * zz
        q = (q + 2.50083801823357915839e7) * zz + -5.38695755929454629881e7
        y = z + z * (zz * p / q)
    if j & 2 == 2:
        y = -1.0 / y
    return -y if x < 0 else y


@device
def _atan_series(x):
    z = x * x
    p = ((-8.750608600031904122785e-01 * z + -1.615753718733365076637e01) * z) + (
        -7.500855792314704667340e01
    )
    p = (p * z + -1.228866684490136173410e02) * z + -6.485021904942025371773e01
    q = ((z + 2.485846490142306297962e01) * z + 1.650270098316988542046e02) * z
    q = (q + 4.328810604912902668951e02) * z + 4.853903996359136964868e02
    q = q * z + 1.945506571482613964425e02
    z = z * p / q
    return x * z + x


@device
def _atan_positive(x):
    extra = 6.123233995736765886130e-17
    if x <= 0.66:
        return _atan_series(x)
    if x > 2.41421356237309504880:
        return math.pi / 2 - _atan_series(1.0 / x) + extra
    return math.pi / 4 + _atan_series((x - 1.0) / (x + 1.0)) + 0.5 * extra


@device
def go_atan(x):
    """Return the arc tangent."""
    if x == 0 or math.isnan(x):
        return x
    return _atan_positive(x) if x > 0 else -_atan_positive(-x)


@device
def go_atan2(y, x):
    """Return the angle of the point (x, y)."""
    if y == 0 or x == 0 or math.isinf(x) or math.isinf(y) or math.isnan(x) or math.isnan(y):
        return math.atan2(y, x)
    q = go_atan(y / x)
    if x < 0:
        return q + math.pi if q <= 0 else q - math.pi
    return q


@device
def go_asin(x):
    """Return the arc sine."""
    if x == 0 or math.isnan(x):
        return x
    a = abs(x)
    if a > 1:
        return np.nan
    root = math.sqrt(1 - a * a)
    y = math.pi / 2 - _atan_positive(root / a) if a > 0.7 else _atan_positive(a / root)
    return -y if x < 0 else y


@device
def go_acos(x):
    """Return the arc cosine."""
    return math.pi / 2 - go_asin(x)


@device
def go_sinh(x):
    """Return the hyperbolic sine."""
    a = abs(x)
    if x == 0:
        return x
    if a > 21:
        y = go_exp(a) * 0.5
    elif a > 0.5:
        e = go_exp(a)
        y = (e - 1 / e) * 0.5
    else:
        q = a * a
        y = (
            ((-26.30563213397497062819489 * q + -2894.211355989563807284660366) * q)
            + (-89912.72022039509355398013511)
        ) * q + -630767.3640497716991184787251
        y *= a
        y /= ((q + -173.678953558233699533450911) * q + 15215.17378790019070696485176) * q + (
            -630767.3640497716991212077277
        )
    return -y if x < 0 else y


@device
def go_cosh(x):
    """Return the hyperbolic cosine."""
    a = abs(x)
    if a > 21:
        return go_exp(a) * 0.5
    e = go_exp(a)
    return (e + 1 / e) * 0.5


@device
def go_tanh(x):
    """Return the hyperbolic tangent."""
    z = abs(x)
    if z > 0.5 * 8.8029691931113054295988e01:
        return -1.0 if x < 0 else 1.0
    if z >= 0.625:
        z = 1 - 2 / (go_exp(2 * z) + 1)
        return -z if x < 0 else z
    if x == 0 or math.isnan(x):
        return x
    s = x * x
    p = (-9.64399179425052238628e-1 * s + -9.92877231001918586564e1) * s + -1.61468768441708447952e3
    q = ((s + 1.12811678491632931402e2) * s + 2.23548839060100448583e3) * s
    return x + x * s * p / (q + 4.84406305325125486048e3)


@device
def go_asinh(x):
    """Return the inverse hyperbolic sine."""
    if math.isnan(x) or math.isinf(x):
        return x
    a = abs(x)
    if a > 268435456.0:
        y = go_log(a) + _LN2
    elif a > 2:
        y = go_log(2 * a + 1 / (math.sqrt(a * a + 1) + a))
    elif a < 1.0 / 268435456:
        return x
    else:
        y = go_log1p(a + a * a / (1 + math.sqrt(1 + a * a)))
    return -y if x < 0 else y


@device
def go_acosh(x):
    """Return the inverse hyperbolic cosine."""
    if x < 1 or math.isnan(x):
        return np.nan
    if x == 1:
        return 0.0
    if x >= 268435456.0:
        return go_log(x) + _LN2
    if x > 2:
        return go_log(2 * x - 1 / (x + math.sqrt(x * x - 1)))
    t = x - 1
    return go_log1p(t + math.sqrt(2 * t + t * t))


@device
def go_atanh(x):
    """Return the inverse hyperbolic tangent."""
    if math.isnan(x) or abs(x) > 1:
        return np.nan
    if abs(x) == 1:
        return math.copysign(np.inf, x)
    a = abs(x)
    if a < 1.0 / 268435456:
        return x
    if a < 0.5:
        y = a + a
        y = 0.5 * go_log1p(y + y * a / (1 - a))
    else:
        y = 0.5 * go_log1p((a + a) / (1 - a))
    return -y if x < 0 else y
