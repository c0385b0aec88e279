/* What a guest agent says: bytes in, "it answered" out. Pure. The bytes are the guest's, which may be broken or hostile: nothing it sends
 * is an error, no line is kept beyond LIMIT_QGA_LINE_BYTES, and what is no answer is dropped.
 * The protocol: QEMU, qga/qapi-schema.json, guest-sync-delimited: the answer comes behind a byte 0xFF, which JSON never holds. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/limits.h"

struct qga_parser {
	char line[LIMIT_QGA_LINE_BYTES];
	size_t len;
	bool skipping; /* the line was too long: dropped up to its end */
};
void qga_parser_init(struct qga_parser *p);
/* True if an answer to one of the questions first_id to last_id ended in these bytes. */
bool qga_parser_feed(struct qga_parser *p, const void *data, size_t len, uint32_t first_id, uint32_t last_id);
/* The question, with the delimiter that makes an agent drop what it had read before. Returns its length; size at least QGA_QUESTION_MAX. */
#define QGA_QUESTION_MAX 96
size_t qga_question(char *ret, size_t size, uint32_t id);
