/* QMP's input: bytes in, messages out. Pure, and the only code that reads what QEMU says, so it is fuzzed.
 * One JSON object a line; a line above the limit, broken JSON or a message of no known form ends the session.
 * Owner: whoever declared the parser; a message belongs to the caller until qmp_message_clear(). */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/buf.h"
#include "lib/err.h"

struct qmp_parser {
	struct buf in;
	size_t scanned; /* bytes of `in` known to hold no line end */
	size_t max_line;
};

enum qmp_message_kind { QMP_MESSAGE_GREETING, QMP_MESSAGE_RETURN, QMP_MESSAGE_ERROR, QMP_MESSAGE_EVENT };

struct qmp_message {
	enum qmp_message_kind kind;
	json_t *root;           /* owned */
	json_t *body;           /* greeting: "QMP"; return: its value; event: "data" or NULL. Borrowed from root. */
	const char *name;       /* event: its name; error: its class */
	const char *desc;       /* error: QEMU's words */
	bool has_id;
	uint64_t id;
};

/* max_line 0: LIMIT_QMP_LINE_BYTES. */
void qmp_parser_init(struct qmp_parser *p, size_t max_line);
void qmp_parser_free(struct qmp_parser *p);
void qmp_parser_feed(struct qmp_parser *p, const void *data, size_t len);
/* 1: *ret holds a message; 0: more bytes needed; -EFBIG, -EPROTO with text: the session is of no use any more. */
int qmp_parser_next(struct qmp_parser *p, struct qmp_message *ret, struct err *err);
void qmp_message_clear(struct qmp_message *m);
