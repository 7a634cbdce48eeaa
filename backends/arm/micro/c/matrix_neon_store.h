/* Write the quantized values of a block of sums in NEON registers. */
static inline void store(const sums *found, const float *factor, uint8_t *y, ptrdiff_t plane,
                         int low, int high)
{
    int16x8_t least = vdupq_n_s16((int16_t)low), most = vdupq_n_s16((int16_t)high);
    UNROLL
    for (int i = 0; i < FILTERS; i += 2, y += 2 * plane) {
        uint8x8_t levels[2];
        requantize_sixteen(found->row[i][0], found->row[i][1], found->row[i + 1][0],
                           found->row[i + 1][1], vld1q_dup_f32(factor + i),
                           vld1q_dup_f32(factor + i + 1), least, most, levels);
        vst1_u8(y, levels[0]);
        vst1_u8(y + plane, levels[1]);
    }
}
