r"""The guard: does an image belong to those that a network was calibrated on?

This text defines the guard in integers. C (`int64_t`), JavaScript (doubles) and numpy give the same
values: the magnitude of every integer stays below 2^53. `a >> k` and `a // b` round down, also for
negative numbers. `clip(v, m)` is v limited to -m..m. "Q8" means a number times 256.

**1. Sums of an image** (`pixel_sums.py`). The pixels are uint8 (height, width, 3), as the network
reads them after colour conversion, resize and crop, before normalization. An image with one channel
counts as three equal channels R, G, B (of a `bgr` network, R is blue). `step` is 1, 2, 4, 8 or 16.

    L = R + 2 G + B

Seventeen sums, 0 to 16. Colour sums are over the pixels of the rows y with y % (2 step) == 0:

    0..2   R, G, B          3..5   R R, G G, B B          6..8   R G, G B, R B
    15     |R - G|          16     |G - B|

The others are over the rows y with y % step == 0. A term exists only where all its pixels do:

    9      |L(y,x+1) - L(y,x)| + |L(y,x) - L(y-1,x)|
    10     |4 L(y-1,x) - L(y-2,x) - L(y,x) - L(y-1,x-1) - L(y-1,x+1)|
    11     |L(y,x+4) - L(y,x)| + |L(y,x) - L(y-4,x)|
    12     |L(y,x+16) - L(y,x)| + |L(y,x) - L(y-16,x)|
    13     the horizontal terms of 9 with x % 8 == 7, the vertical terms of 9 with y % 8 == 0
    14     the number of terms of 9, horizontal and vertical, that are 0

**2. Features of an image** (`picture_features.py`), 19 integers, from the sums S, with
n = width * ceil(height / step) and c = width * ceil(height / (2 step)):

    log2q8(x)   256 log2(x), rounded down in 8 steps: see `integer_log.py`
    mean(s)     (256 s) // c
    var(q, s)   max((65536 q) // c - mean(s)^2, 0)
    detail      log2q8(16 S9 + n)

    0..4   log2q8(16 S_i + n) - detail, i = 10, 11, 12, 13; then log2q8(S14 + n // 64 + 1)
    5      detail
    6..8   log2q8(var(S3, S0) + 4096), log2q8(var(S4, S1) + 4096), log2q8(var(S5, S2) + 4096)
    9..11  mean(S0) // 8, mean(S1) // 8, mean(S2) // 8
    12     log2q8(var(S3 + S4 - 2 S6, S0 - S1) + 4096)
    13     log2q8(var(S4 + S5 - 2 S7, S1 - S2) + 4096)
    14     log2q8(var(S3 + S5 - 2 S8, S0 - S2) + 4096)
    15,16  log2q8(S15 + c), log2q8(S16 + c)
    17,18  mean(S0 - S1) // 4, mean(S1 - S2) // 4

**3. Deviations and score of a picture** (`forms.py`). `PictureForm` has `center` (19), `rows`
(lower triangle of 19 rows, one after the other, 190 int16) and `shifts` (19):

    d_j = clip(feature_j - center_j, 32767)
    deviation_k = clip((sum_{j <= k} rows_kj d_j) >> (shifts_k - 4), 2^22)         in 1/16 sigma
    picture score = log2q8(16 + sum_k deviation_k^2)

A deviation is what a feature has more than the features before it let expect.

**4. Score of a layer** (`forms.py`). `s_c` is the sum of the 8-bit codes of channel c of the layer
`tap`, over its pixels; codes as the integer program defines them, int8 or uint8. Only the channels
0, stride, 2 stride, ... count. `LayerForm` has `center`, `factors` (uint16) and `factor_shift` of
each of the C counted channels, K `directions` (K times C, int16), and K + 1 `weights` (int16) with
`weight_shifts`; weight 0 is that of the rest:

    z_c = clip(((s_c - center_c) factors_c) >> factor_shift, 2047)
    p_k = clip((sum_c directions_kc z_c) >> 8, 2^22)
    t   = ((weights_0 sum_c z_c^2) >> weight_shifts_0)
          + sum_k ((weights_{k+1} (p_k^2 >> 8)) >> weight_shifts_{k+1})
    layer score = log2q8(16 + max(t, 0))

**5. State of a stream** (`stream.py`): three evidences R, 19 trends T, and the sums of the running
case. All are 0 at the start. A case is a patient or a slide; without cases each image is one.

The guard knows some changes of images. Change d has a direction (19 int16, a vector of length
32,767) and thresholds. The suspected change of a case is the d with the largest
sum_k direction_dk T_k; of equal ones the lowest d. It stays the same during the case. For each
image, with the suspected change d:

    drift score = clip((sum_k direction_dk clip(deviation_k, 2^16)) >> 15, 32767)    in 1/16 sigma
    e = steps[number of thresholds that are below the score]                                in Q8

The thresholds of picture and layer are their own, those of drift are the ones of change d; each of
the three has its own steps. At the end of a case of m images (nothing happens if m is 0):

    R_i = min(((R_i + 256) (sum of e_i // m)) >> 8, 2^40)         i = picture, drift, layer
    T_k = T_k + ((16 (sum of clip(deviation_k, 64) // m) - T_k) >> 3)

**6. Alarm**: sum of R_i >= 256 * 100,000 * (number of scores). It says "the network sees something
else" if R_layer >= 256 * 100,000, otherwise "the pictures differ". The feature named is that with
the largest |T|; of equal ones the lower index. If R_drift >= 256 * 100,000, the suspected change of
the trends T is named as well. A guard without a layer has two scores.

**The promise.** If cases come independently from the distribution of the guard images' cases, then
with 99 % confidence over those, the expectation of each e is at most 1 (256). So R is a
Shiryaev-Roberts e-detector, and a false alarm comes within N cases with a probability of at most
N / 100,000 (Shin, Ramdas, Rinaldo, E-detectors, 2023). Silence promises nothing.
"""
