/* Levels of a block of sums in NEON registers. */
static inline void store(const sums *found, const float *factor, uint8_t *y, ptrdiff_t plane,
                         int low, int high)
{
    int16x8_t least = vdupq_n_s16((int16_t)low), most = vdupq_n_s16((int16_t)high);
    UNROLL
    for (int i = 0; i < FILTERS; i++, y += plane)
        vst1_u8(y, requantize_eight(found->row[i][0], found->row[i][1], vld1q_dup_f32(factor + i),
                                    least, most));
}
