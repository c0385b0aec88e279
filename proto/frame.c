#include "proto/frame.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

static const uint8_t frame__magic[2] = {'G', 'y'};

void frame_parser_init(struct frame_parser *p, size_t max_payload, uint32_t kinds)
{
	*p = (struct frame_parser){.max_payload = max_payload, .kinds = kinds | 1u << FRAME_REFUSAL};
}

void frame_parser_free(struct frame_parser *p)
{
	buf_free(&p->in);
	p->at = 0;
}

void *frame_parser_reserve(struct frame_parser *p, size_t len)
{
	if (p->at == p->in.len)
		p->at = p->in.len = 0;
	if (p->at && p->in.cap - p->in.len < len) {
		/* What is left is moved to the front only when there is no room behind it: once per
		 * large frame, not once per read. */
		buf_consume(&p->in, p->at);
		p->at = 0;
	}
	return buf_reserve(&p->in, len);
}

void frame_parser_commit(struct frame_parser *p, size_t len)
{
	assert(len <= p->in.cap - p->in.len);
	p->in.len += len;
}

void frame_parser_feed(struct frame_parser *p, const void *data, size_t len)
{
	if (!len)
		return;
	memcpy(frame_parser_reserve(p, len), data, len);
	frame_parser_commit(p, len);
}

size_t frame_parser_pending(const struct frame_parser *p)
{
	return p->in.len - p->at;
}

/* Checks as much of the header as has come, so that a stranger is known by his first byte. */
static int frame__check(const struct frame_parser *p, const uint8_t *h, size_t len, struct err *err)
{
	unsigned kind, version;

	if ((len > 0 && h[0] != frame__magic[0]) || (len > 1 && h[1] != frame__magic[1]))
		return err_set(err, EPROTO, "this is no frame of Gantry's protocol (it begins with byte 0x%02x)", h[0]);
	if (len < 4)
		return 0;
	version = h[2];
	kind = h[3];
	if (version != FRAME_VERSION && kind != FRAME_REFUSAL)
		return err_set(err, EPROTO, "this is protocol %u, you speak %u: upgrade the older side to the same release",
			       FRAME_VERSION, version);
	if (kind > 31 || !(p->kinds & 1u << kind))
		return err_set(err, EPROTO, "a frame of kind %u is not understood here: is it the right port or socket?", kind);
	return 0;
}

static uint32_t frame__length(const uint8_t *h)
{
	return (uint32_t)h[4] << 24 | (uint32_t)h[5] << 16 | (uint32_t)h[6] << 8 | h[7];
}

int frame_parser_next(struct frame_parser *p, struct frame *ret, struct err *err)
{
	size_t have = frame_parser_pending(p);
	const uint8_t *h;
	uint32_t len;
	int rc;

	if (!have)
		return 0;
	h = p->in.data + p->at;
	rc = frame__check(p, h, have, err);
	if (rc < 0 || have < FRAME_HEADER_BYTES)
		return rc;
	len = frame__length(h);
	if (len > p->max_payload)
		return err_set(err, EPROTO, "a frame of %u bytes is too large: at most %zu are taken", len, p->max_payload);
	if (have < FRAME_HEADER_BYTES + (size_t)len)
		return 0;
	ret->kind = (enum frame_kind)h[3];
	ret->payload = h + FRAME_HEADER_BYTES;
	ret->len = len;
	p->at += FRAME_HEADER_BYTES + (size_t)len;
	return 1;
}

void frame_header_encode(uint8_t out[FRAME_HEADER_BYTES], enum frame_kind kind, uint32_t len)
{
	out[0] = frame__magic[0];
	out[1] = frame__magic[1];
	out[2] = FRAME_VERSION;
	out[3] = (uint8_t)kind;
	out[4] = (uint8_t)(len >> 24);
	out[5] = (uint8_t)(len >> 16);
	out[6] = (uint8_t)(len >> 8);
	out[7] = (uint8_t)len;
}

void frame_append(struct buf *out, enum frame_kind kind, const void *payload, size_t len)
{
	assert(len <= UINT32_MAX);
	frame_header_encode(buf_reserve(out, FRAME_HEADER_BYTES + len), kind, (uint32_t)len);
	out->len += FRAME_HEADER_BYTES;
	buf_append(out, payload, len);
}
