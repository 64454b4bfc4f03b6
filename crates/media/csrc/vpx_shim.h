/* What Rust needs of libvpx, without any of its structs: they change from release to release. */
#ifndef ANTEROOM_VPX_SHIM_H
#define ANTEROOM_VPX_SHIM_H

#include <stddef.h>
#include <stdint.h>

enum anteroom_vpx_codec { ANTEROOM_VPX_VP8 = 0, ANTEROOM_VPX_VP9 = 1 };

/* Results besides 0 (success): libvpx's own codes are negated, so they stay apart from this one. */
enum { ANTEROOM_VPX_BAD_ARGUMENT = 1000, ANTEROOM_VPX_NO_MEMORY = 1001 };

typedef struct anteroom_vpx_encoder anteroom_vpx_encoder;

typedef struct anteroom_vpx_frame {
  const uint8_t *data; /* valid until the next call with the same encoder */
  size_t len;          /* 0: the encoder made nothing of this picture */
  int32_t key;
  int32_t quantizer;   /* 0 to 63 */
} anteroom_vpx_frame;

/* Width and height are even, 16 to 4096. */
int32_t anteroom_vpx_encoder_new(int32_t codec, uint32_t width, uint32_t height,
                                 uint32_t bitrate_kbps, uint32_t threads,
                                 anteroom_vpx_encoder **out);

/* `y` holds width*height bytes, `u` and `v` a quarter of that, `active` one byte a 16x16 block;
   `max_quantizer` is 4 (sharp) to 63 (coarse). */
int32_t anteroom_vpx_encoder_encode(anteroom_vpx_encoder *encoder, const uint8_t *y, size_t y_len,
                                    const uint8_t *u, const uint8_t *v, size_t chroma_len,
                                    const uint8_t *active, size_t active_len, int64_t pts_us,
                                    int64_t duration_us, int32_t force_key,
                                    uint32_t max_quantizer, anteroom_vpx_frame *out);

int32_t anteroom_vpx_encoder_set_bitrate(anteroom_vpx_encoder *encoder, uint32_t bitrate_kbps);

/* A static string. */
const char *anteroom_vpx_error_name(int32_t result);

void anteroom_vpx_encoder_free(anteroom_vpx_encoder *encoder);

/* The decoder exists for those who look at a stream: it is in an object file of its own, linked only
   where used. */
typedef struct anteroom_vpx_decoder anteroom_vpx_decoder;

/* The size that a key frame says; width and height are 0 where it is no key frame. */
int32_t anteroom_vpx_key_frame_size(int32_t codec, const uint8_t *data, size_t len, uint32_t *width,
                                    uint32_t *height);

int32_t anteroom_vpx_decoder_new(int32_t codec, anteroom_vpx_decoder **out);

/* Decodes one frame and copies its planes, whose lengths must be those of width x height. */
int32_t anteroom_vpx_decoder_decode(anteroom_vpx_decoder *decoder, const uint8_t *data, size_t len,
                                    uint32_t width, uint32_t height, uint8_t *y, size_t y_len,
                                    uint8_t *u, uint8_t *v, size_t chroma_len);

void anteroom_vpx_decoder_free(anteroom_vpx_decoder *decoder);

#endif
