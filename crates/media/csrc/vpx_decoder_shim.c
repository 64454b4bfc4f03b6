#include "vpx_shim.h"

#include <stdlib.h>
#include <string.h>

#include <vpx/vp8dx.h>
#include <vpx/vpx_decoder.h>

struct anteroom_vpx_decoder {
  vpx_codec_ctx_t context;
};

static vpx_codec_iface_t *interface_of(int32_t codec) {
  return codec == ANTEROOM_VPX_VP9 ? vpx_codec_vp9_dx() : vpx_codec_vp8_dx();
}

int32_t anteroom_vpx_key_frame_size(int32_t codec, const uint8_t *data, size_t len, uint32_t *width,
                                    uint32_t *height) {
  if (!data || !width || !height || len > 1u << 30 ||
      (codec != ANTEROOM_VPX_VP8 && codec != ANTEROOM_VPX_VP9))
    return ANTEROOM_VPX_BAD_ARGUMENT;
  *width = *height = 0;
  vpx_codec_stream_info_t info = {.sz = sizeof info};
  /* VP8's reader calls a frame that is no key frame an error. */
  vpx_codec_err_t error =
      vpx_codec_peek_stream_info(interface_of(codec), data, (unsigned int)len, &info);
  if (error == VPX_CODEC_UNSUP_BITSTREAM) return 0;
  if (error != VPX_CODEC_OK) return -(int32_t)error;
  if (info.is_kf) {
    *width = info.w;
    *height = info.h;
  }
  return 0;
}

int32_t anteroom_vpx_decoder_new(int32_t codec, anteroom_vpx_decoder **out) {
  if (!out || (codec != ANTEROOM_VPX_VP8 && codec != ANTEROOM_VPX_VP9))
    return ANTEROOM_VPX_BAD_ARGUMENT;
  *out = NULL;
  anteroom_vpx_decoder *decoder = calloc(1, sizeof *decoder);
  if (!decoder) return ANTEROOM_VPX_NO_MEMORY;
  vpx_codec_err_t error = vpx_codec_dec_init(&decoder->context, interface_of(codec), NULL, 0);
  if (error != VPX_CODEC_OK) {
    free(decoder);
    return -(int32_t)error;
  }
  *out = decoder;
  return 0;
}

static void copy_plane(const vpx_image_t *image, int plane, uint32_t width, uint32_t height,
                       uint8_t *out) {
  for (uint32_t row = 0; row < height; row++)
    memcpy(out + (size_t)row * width, image->planes[plane] + (ptrdiff_t)row * image->stride[plane],
           width);
}

int32_t anteroom_vpx_decoder_decode(anteroom_vpx_decoder *decoder, const uint8_t *data, size_t len,
                                    uint32_t width, uint32_t height, uint8_t *y, size_t y_len,
                                    uint8_t *u, uint8_t *v, size_t chroma_len) {
  if (!decoder || !data || !y || !u || !v || len > 1u << 30 || width % 2 || height % 2 ||
      y_len != (size_t)width * height || chroma_len != y_len / 4)
    return ANTEROOM_VPX_BAD_ARGUMENT;
  vpx_codec_err_t error = vpx_codec_decode(&decoder->context, data, (unsigned int)len, NULL, 0);
  if (error != VPX_CODEC_OK) return -(int32_t)error;
  vpx_codec_iter_t iterator = NULL;
  const vpx_image_t *image = vpx_codec_get_frame(&decoder->context, &iterator);
  if (!image || image->fmt != VPX_IMG_FMT_I420 || image->d_w != width || image->d_h != height)
    return ANTEROOM_VPX_BAD_ARGUMENT;
  copy_plane(image, VPX_PLANE_Y, width, height, y);
  copy_plane(image, VPX_PLANE_U, width / 2, height / 2, u);
  copy_plane(image, VPX_PLANE_V, width / 2, height / 2, v);
  return 0;
}

void anteroom_vpx_decoder_free(anteroom_vpx_decoder *decoder) {
  if (!decoder) return;
  vpx_codec_destroy(&decoder->context);
  free(decoder);
}
