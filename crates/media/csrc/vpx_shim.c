#include "vpx_shim.h"

#include <stdlib.h>
#include <string.h>

#include <vpx/vp8cx.h>
#include <vpx/vpx_encoder.h>

struct anteroom_vpx_encoder {
  vpx_codec_ctx_t context;
  vpx_codec_enc_cfg_t config;
  int32_t codec;
  unsigned int rows;
  unsigned int columns;
  unsigned char *active;
};

static int32_t result_of(vpx_codec_err_t error) { return error == VPX_CODEC_OK ? 0 : -(int32_t)error; }

static void fill_config(vpx_codec_enc_cfg_t *config, uint32_t width, uint32_t height,
                        uint32_t bitrate_kbps, uint32_t threads) {
  config->g_w = width;
  config->g_h = height;
  config->g_threads = threads;
  config->g_timebase.num = 1;
  config->g_timebase.den = 1000000;
  config->g_lag_in_frames = 0;
  config->g_error_resilient = 0;
  config->g_pass = VPX_RC_ONE_PASS;
  config->rc_end_usage = VPX_CBR;
  config->rc_target_bitrate = bitrate_kbps;
  config->rc_dropframe_thresh = 0;
  config->rc_resize_allowed = 0;
  config->rc_min_quantizer = 4;
  config->rc_max_quantizer = 52;
  config->rc_undershoot_pct = 100;
  config->rc_overshoot_pct = 15;
  config->rc_buf_sz = 1000;
  config->rc_buf_initial_sz = 500;
  config->rc_buf_optimal_sz = 600;
  /* Key frames come on demand only; this is as good as never. */
  config->kf_mode = VPX_KF_AUTO;
  config->kf_min_dist = 0;
  config->kf_max_dist = 1000000;
}

/* A key frame may take as many frames' bits, in percent: the viewer waits for it. What follows
   makes it sharp. */
#define MAX_INTRA_PERCENT 500u

#define CONTROL(id, value)                                                \
  do {                                                                    \
    vpx_codec_err_t error_ = vpx_codec_control(context, id, value);       \
    if (error_ != VPX_CODEC_OK) return error_;                            \
  } while (0)

static vpx_codec_err_t set_vp9_controls(vpx_codec_ctx_t *context) {
  CONTROL(VP8E_SET_CPUUSED, 7);
  CONTROL(VP9E_SET_TUNE_CONTENT, VP9E_CONTENT_SCREEN);
  CONTROL(VP9E_SET_AQ_MODE, 3);
  CONTROL(VP9E_SET_ROW_MT, 1);
  CONTROL(VP9E_SET_TILE_COLUMNS, 1);
  CONTROL(VP9E_SET_NOISE_SENSITIVITY, 0);
  CONTROL(VP9E_SET_FRAME_PARALLEL_DECODING, 0);
  CONTROL(VP9E_SET_COLOR_SPACE, VPX_CS_BT_601);
  CONTROL(VP8E_SET_MAX_INTRA_BITRATE_PCT, MAX_INTRA_PERCENT);
  return VPX_CODEC_OK;
}

static vpx_codec_err_t set_vp8_controls(vpx_codec_ctx_t *context) {
  CONTROL(VP8E_SET_CPUUSED, -6);
  CONTROL(VP8E_SET_SCREEN_CONTENT_MODE, 1);
  CONTROL(VP8E_SET_STATIC_THRESHOLD, 0u);
  CONTROL(VP8E_SET_NOISE_SENSITIVITY, 0u);
  CONTROL(VP8E_SET_TOKEN_PARTITIONS, VP8_ONE_TOKENPARTITION);
  CONTROL(VP8E_SET_MAX_INTRA_BITRATE_PCT, MAX_INTRA_PERCENT);
  return VPX_CODEC_OK;
}

int32_t anteroom_vpx_encoder_new(int32_t codec, uint32_t width, uint32_t height,
                                 uint32_t bitrate_kbps, uint32_t threads,
                                 anteroom_vpx_encoder **out) {
  if (!out || width < 16 || height < 16 || width > 4096 || height > 4096 || width % 2 || height % 2 ||
      threads < 1 || threads > 16 || bitrate_kbps < 1 || bitrate_kbps > 1000000 ||
      (codec != ANTEROOM_VPX_VP8 && codec != ANTEROOM_VPX_VP9))
    return ANTEROOM_VPX_BAD_ARGUMENT;
  *out = NULL;

  anteroom_vpx_encoder *encoder = calloc(1, sizeof *encoder);
  if (!encoder) return ANTEROOM_VPX_NO_MEMORY;
  encoder->codec = codec;
  encoder->columns = (width + 15) / 16;
  encoder->rows = (height + 15) / 16;
  encoder->active = malloc((size_t)encoder->columns * encoder->rows);
  if (!encoder->active) {
    free(encoder);
    return ANTEROOM_VPX_NO_MEMORY;
  }

  vpx_codec_iface_t *interface = codec == ANTEROOM_VPX_VP9 ? vpx_codec_vp9_cx() : vpx_codec_vp8_cx();
  vpx_codec_err_t error = vpx_codec_enc_config_default(interface, &encoder->config, 0);
  if (error == VPX_CODEC_OK) {
    fill_config(&encoder->config, width, height, bitrate_kbps, threads);
    error = vpx_codec_enc_init(&encoder->context, interface, &encoder->config, 0);
  }
  if (error != VPX_CODEC_OK) {
    free(encoder->active);
    free(encoder);
    return result_of(error);
  }
  error = codec == ANTEROOM_VPX_VP9 ? set_vp9_controls(&encoder->context)
                                    : set_vp8_controls(&encoder->context);
  if (error != VPX_CODEC_OK) {
    anteroom_vpx_encoder_free(encoder);
    return result_of(error);
  }
  *out = encoder;
  return 0;
}

static vpx_codec_err_t set_active(anteroom_vpx_encoder *encoder, const uint8_t *active) {
  /* libvpx takes the map as writable, so it gets a copy. */
  memcpy(encoder->active, active, (size_t)encoder->columns * encoder->rows);
  vpx_active_map_t map = {encoder->active, encoder->rows, encoder->columns};
  return vpx_codec_control(&encoder->context, VP8E_SET_ACTIVEMAP, &map);
}

int32_t anteroom_vpx_encoder_encode(anteroom_vpx_encoder *encoder, const uint8_t *y, size_t y_len,
                                    const uint8_t *u, const uint8_t *v, size_t chroma_len,
                                    const uint8_t *active, size_t active_len, int64_t pts_us,
                                    int64_t duration_us, int32_t force_key,
                                    uint32_t max_quantizer, anteroom_vpx_frame *out) {
  if (!encoder || !y || !u || !v || !active || !out || duration_us < 1 || pts_us < 0 ||
      max_quantizer < encoder->config.rc_min_quantizer || max_quantizer > 63)
    return ANTEROOM_VPX_BAD_ARGUMENT;
  const unsigned int width = encoder->config.g_w, height = encoder->config.g_h;
  if (y_len != (size_t)width * height || chroma_len != y_len / 4 ||
      active_len != (size_t)encoder->columns * encoder->rows)
    return ANTEROOM_VPX_BAD_ARGUMENT;
  memset(out, 0, sizeof *out);

  vpx_codec_err_t error = set_active(encoder, active);
  if (error != VPX_CODEC_OK) return result_of(error);
  if (encoder->config.rc_max_quantizer != max_quantizer) {
    encoder->config.rc_max_quantizer = max_quantizer;
    error = vpx_codec_enc_config_set(&encoder->context, &encoder->config);
    if (error != VPX_CODEC_OK) return result_of(error);
  }

  /* The planes are tight; libvpx reads them only, whatever its types say. */
  vpx_image_t image;
  if (!vpx_img_wrap(&image, VPX_IMG_FMT_I420, width, height, 1, (unsigned char *)y))
    return ANTEROOM_VPX_BAD_ARGUMENT;
  image.planes[VPX_PLANE_U] = (unsigned char *)u;
  image.planes[VPX_PLANE_V] = (unsigned char *)v;
  image.stride[VPX_PLANE_Y] = (int)width;
  image.stride[VPX_PLANE_U] = image.stride[VPX_PLANE_V] = (int)(width / 2);
  image.cs = VPX_CS_BT_601;
  image.range = VPX_CR_STUDIO_RANGE;

  error = vpx_codec_encode(&encoder->context, &image, pts_us, (unsigned long)duration_us,
                           force_key ? VPX_EFLAG_FORCE_KF : 0, VPX_DL_REALTIME);
  if (error != VPX_CODEC_OK) return result_of(error);

  /* One picture in gives at most one packet out: no lag, no alternate reference frames. */
  vpx_codec_iter_t iterator = NULL;
  const vpx_codec_cx_pkt_t *packet;
  while ((packet = vpx_codec_get_cx_data(&encoder->context, &iterator)) != NULL) {
    if (packet->kind != VPX_CODEC_CX_FRAME_PKT) continue;
    out->data = packet->data.frame.buf;
    out->len = packet->data.frame.sz;
    out->key = (packet->data.frame.flags & VPX_FRAME_IS_KEY) != 0;
    break;
  }
  int quantizer = 63;
  error = vpx_codec_control(&encoder->context, VP8E_GET_LAST_QUANTIZER_64, &quantizer);
  out->quantizer = quantizer;
  return result_of(error);
}

int32_t anteroom_vpx_encoder_set_bitrate(anteroom_vpx_encoder *encoder, uint32_t bitrate_kbps) {
  if (!encoder || bitrate_kbps < 1 || bitrate_kbps > 1000000) return ANTEROOM_VPX_BAD_ARGUMENT;
  encoder->config.rc_target_bitrate = bitrate_kbps;
  return result_of(vpx_codec_enc_config_set(&encoder->context, &encoder->config));
}

const char *anteroom_vpx_error_name(int32_t result) {
  if (result == ANTEROOM_VPX_BAD_ARGUMENT) return "an argument of the wrong size";
  if (result == ANTEROOM_VPX_NO_MEMORY) return "out of memory";
  return vpx_codec_err_to_string((vpx_codec_err_t)-result);
}

void anteroom_vpx_encoder_free(anteroom_vpx_encoder *encoder) {
  if (!encoder) return;
  vpx_codec_destroy(&encoder->context);
  free(encoder->active);
  free(encoder);
}
