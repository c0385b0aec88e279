/* Frames from a stranger, fed in pieces: the same frames come out as from one piece, and a dead stream stays dead. */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proto/agent.pb-c.h"
#include "proto/ctl.pb-c.h"
#include "proto/frame.h"
#include "proto/migration.pb-c.h"
#include "proto/pb.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FUZZ_PAYLOAD_MAX = 4096, FUZZ_KINDS = 1u << FRAME_CTL | 1u << FRAME_AGENT | 1u << FRAME_MIGRATION | 1u << FRAME_DATA };

static const ProtobufCMessageDescriptor *fuzz_descriptor(enum frame_kind kind)
{
	switch (kind) {
	case FRAME_CTL:
		return &gantry__ctl_message__descriptor;
	case FRAME_AGENT:
		return &gantry__agent_message__descriptor;
	case FRAME_MIGRATION:
		return &gantry__migration_message__descriptor;
	default:
		return NULL;
	}
}

/* A message that is read can be written, and reads the same again. */
static void fuzz_message(const struct frame *frame)
{
	const ProtobufCMessageDescriptor *d = fuzz_descriptor(frame->kind);
	ProtobufCMessage *message, *copy;
	struct buf packed = {0};

	if (!d)
		return;
	message = protobuf_c_message_unpack(d, NULL, frame->len, frame->payload);
	if (!message)
		return;
	pb_pack(message, &packed);
	copy = protobuf_c_message_unpack(d, NULL, packed.len, packed.data);
	if (!copy || !pb_equal(message, copy))
		abort();
	protobuf_c_message_free_unpacked(copy, NULL);
	copy = pb_clone(message);
	if (!pb_equal(message, copy))
		abort();
	protobuf_c_message_free_unpacked(message, NULL);
	protobuf_c_message_free_unpacked(copy, NULL);
	buf_free(&packed);
}

/* What came out, in one buffer: kind, length, payload of each frame, then how it ended. */
static void fuzz_drain(struct frame_parser *p, struct buf *seen, int *ended)
{
	struct frame frame;
	struct err err;
	int rc = 0;

	while (*ended == 0 && (rc = frame_parser_next(p, &frame, &err)) == 1) {
		if (frame.len > FUZZ_PAYLOAD_MAX || frame.kind > 5)
			abort();
		buf_append(seen, &frame.kind, sizeof(frame.kind));
		buf_append(seen, &frame.len, sizeof(frame.len));
		buf_append(seen, frame.payload, frame.len);
		fuzz_message(&frame);
	}
	if (rc < 0) {
		if (rc != -EPROTO || !err.text[0] || frame_parser_next(p, &frame, &err) != rc)
			abort();
		*ended = rc;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct frame_parser whole, pieces;
	struct buf seen_whole = {0}, seen_pieces = {0};
	int ended_whole = 0, ended_pieces = 0;
	uint64_t step = size;

	frame_parser_init(&whole, FUZZ_PAYLOAD_MAX, FUZZ_KINDS);
	frame_parser_init(&pieces, FUZZ_PAYLOAD_MAX, FUZZ_KINDS);
	frame_parser_feed(&whole, data, size);
	fuzz_drain(&whole, &seen_whole, &ended_whole);
	for (size_t at = 0, len; at < size; at += len) {
		step = step * 6364136223846793005u + 1442695040888963407u;
		len = 1 + (step >> 33) % 13;
		len = len < size - at ? len : size - at;
		frame_parser_feed(&pieces, data + at, len);
		fuzz_drain(&pieces, &seen_pieces, &ended_pieces);
	}
	if (ended_whole != ended_pieces || seen_whole.len != seen_pieces.len ||
	    (seen_whole.len && memcmp(seen_whole.data, seen_pieces.data, seen_whole.len) != 0))
		abort();
	frame_parser_free(&whole);
	frame_parser_free(&pieces);
	buf_free(&seen_whole);
	buf_free(&seen_pieces);
	return 0;
}
