/* SHA-512 (FIPS 180-4), and Ed25519 (RFC 8032) with it. Monocypher's own signatures use another
 * hash, so only its curve is used.
 */
#ifndef MODEL_ED25519_H
#define MODEL_ED25519_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "monocypher.h"

enum { SHA512_BLOCK = 128, SHA512_BYTES = 64 };

typedef struct {
    uint64_t hash[8], size;
    uint8_t block[SHA512_BLOCK];
} sha512_state;

/* The first 64 bits of the fractional parts of the square roots of the first 8 primes (5.3.5). */
static const uint64_t sha512_start[8] = {
    0x6a09e667f3bcc908ULL, 0xbb67ae8584caa73bULL, 0x3c6ef372fe94f82bULL, 0xa54ff53a5f1d36f1ULL,
    0x510e527fade682d1ULL, 0x9b05688c2b3e6c1fULL, 0x1f83d9abfb41bd6bULL, 0x5be0cd19137e2179ULL,
};

/* The first 64 bits of the fractional parts of the cube roots of the first 80 primes (4.2.3). */
static const uint64_t sha512_round[80] = {
    0x428a2f98d728ae22ULL, 0x7137449123ef65cdULL, 0xb5c0fbcfec4d3b2fULL, 0xe9b5dba58189dbbcULL,
    0x3956c25bf348b538ULL, 0x59f111f1b605d019ULL, 0x923f82a4af194f9bULL, 0xab1c5ed5da6d8118ULL,
    0xd807aa98a3030242ULL, 0x12835b0145706fbeULL, 0x243185be4ee4b28cULL, 0x550c7dc3d5ffb4e2ULL,
    0x72be5d74f27b896fULL, 0x80deb1fe3b1696b1ULL, 0x9bdc06a725c71235ULL, 0xc19bf174cf692694ULL,
    0xe49b69c19ef14ad2ULL, 0xefbe4786384f25e3ULL, 0x0fc19dc68b8cd5b5ULL, 0x240ca1cc77ac9c65ULL,
    0x2de92c6f592b0275ULL, 0x4a7484aa6ea6e483ULL, 0x5cb0a9dcbd41fbd4ULL, 0x76f988da831153b5ULL,
    0x983e5152ee66dfabULL, 0xa831c66d2db43210ULL, 0xb00327c898fb213fULL, 0xbf597fc7beef0ee4ULL,
    0xc6e00bf33da88fc2ULL, 0xd5a79147930aa725ULL, 0x06ca6351e003826fULL, 0x142929670a0e6e70ULL,
    0x27b70a8546d22ffcULL, 0x2e1b21385c26c926ULL, 0x4d2c6dfc5ac42aedULL, 0x53380d139d95b3dfULL,
    0x650a73548baf63deULL, 0x766a0abb3c77b2a8ULL, 0x81c2c92e47edaee6ULL, 0x92722c851482353bULL,
    0xa2bfe8a14cf10364ULL, 0xa81a664bbc423001ULL, 0xc24b8b70d0f89791ULL, 0xc76c51a30654be30ULL,
    0xd192e819d6ef5218ULL, 0xd69906245565a910ULL, 0xf40e35855771202aULL, 0x106aa07032bbd1b8ULL,
    0x19a4c116b8d2d0c8ULL, 0x1e376c085141ab53ULL, 0x2748774cdf8eeb99ULL, 0x34b0bcb5e19b48a8ULL,
    0x391c0cb3c5c95a63ULL, 0x4ed8aa4ae3418acbULL, 0x5b9cca4f7763e373ULL, 0x682e6ff3d6b2b8a3ULL,
    0x748f82ee5defb2fcULL, 0x78a5636f43172f60ULL, 0x84c87814a1f0ab72ULL, 0x8cc702081a6439ecULL,
    0x90befffa23631e28ULL, 0xa4506cebde82bde9ULL, 0xbef9a3f7b2c67915ULL, 0xc67178f2e372532bULL,
    0xca273eceea26619cULL, 0xd186b8c721c0c207ULL, 0xeada7dd6cde0eb1eULL, 0xf57d4f7fee6ed178ULL,
    0x06f067aa72176fbaULL, 0x0a637dc5a2c898a6ULL, 0x113f9804bef90daeULL, 0x1b710b35131c471bULL,
    0x28db77f523047d84ULL, 0x32caab7b40c72493ULL, 0x3c9ebe0a15c9bebcULL, 0x431d67c49c100d4cULL,
    0x4cc5d4becb3e42b6ULL, 0x597f299cfc657e2aULL, 0x5fcb6fab3ad6faecULL, 0x6c44198c4a475817ULL,
};

static uint64_t rotate_right(uint64_t x, int count) { return x >> count | x << (64 - count); }

/* Add the block to the hash (6.4.2). */
static void sha512_compress(sha512_state *state)
{
    uint64_t w[80], v[8];
    for (int t = 0; t < 16; t++) {
        w[t] = 0;
        for (int i = 0; i < 8; i++)
            w[t] = w[t] << 8 | state->block[8 * t + i];
    }
    for (int t = 16; t < 80; t++) {
        uint64_t w2 = w[t - 2], w15 = w[t - 15];
        w[t] = w[t - 16] + w[t - 7]
             + (rotate_right(w2, 19) ^ rotate_right(w2, 61) ^ w2 >> 6)
             + (rotate_right(w15, 1) ^ rotate_right(w15, 8) ^ w15 >> 7);
    }
    memcpy(v, state->hash, sizeof v);
    for (int t = 0; t < 80; t++) {
        uint64_t a = v[0], e = v[4];
        uint64_t t1 = v[7] + sha512_round[t] + w[t] + ((e & v[5]) ^ (~e & v[6]))
                    + (rotate_right(e, 14) ^ rotate_right(e, 18) ^ rotate_right(e, 41));
        uint64_t t2 = ((a & v[1]) ^ (a & v[2]) ^ (v[1] & v[2]))
                    + (rotate_right(a, 28) ^ rotate_right(a, 34) ^ rotate_right(a, 39));
        memmove(v + 1, v, 7 * sizeof v[0]);
        v[4] += t1;
        v[0] = t1 + t2;
    }
    for (int i = 0; i < 8; i++)
        state->hash[i] += v[i];
}

static void sha512_begin(sha512_state *state)
{
    memcpy(state->hash, sha512_start, sizeof sha512_start);
    state->size = 0;
}

static void sha512_add(sha512_state *state, const uint8_t *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        state->block[state->size++ % SHA512_BLOCK] = bytes[i];
        if (state->size % SHA512_BLOCK == 0)
            sha512_compress(state);
    }
}

/* Pad to a full block that ends with the number of bits in 16 bytes (5.1.2), and write the
   digest. */
static void sha512_end(sha512_state *state, uint8_t digest[SHA512_BYTES])
{
    uint8_t bits[16] = {0};
    for (int i = 0; i < 8; i++)
        bits[8 + i] = (uint8_t)(state->size << 3 >> (56 - 8 * i));
    bits[7] = (uint8_t)(state->size >> 61);
    sha512_add(state, (const uint8_t[]){0x80}, 1);
    while (state->size % SHA512_BLOCK != SHA512_BLOCK - sizeof bits)
        sha512_add(state, (const uint8_t[]){0}, 1);
    sha512_add(state, bits, sizeof bits);
    for (int i = 0; i < SHA512_BYTES; i++)
        digest[i] = (uint8_t)(state->hash[i / 8] >> (56 - 8 * (i % 8)));
}

/* Return whether a signature of a message is valid for a public key (RFC 8032, 5.1.7). */
static int ed25519_verify(const uint8_t signature[64], const uint8_t public_key[32],
                          const uint8_t *message, size_t size)
{
    uint8_t digest[SHA512_BYTES], scalar[32];
    sha512_state state;
    sha512_begin(&state);
    sha512_add(&state, signature, 32);
    sha512_add(&state, public_key, 32);
    sha512_add(&state, message, size);
    sha512_end(&state, digest);
    crypto_eddsa_reduce(scalar, digest);
    return crypto_eddsa_check_equation(signature, public_key, scalar) == 0;
}

#endif
