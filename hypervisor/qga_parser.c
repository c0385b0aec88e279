#include "hypervisor/qga_parser.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>

#define DELIMITER 0xff

void qga_parser_init(struct qga_parser *p)
{
	p->len = 0;
	p->skipping = false;
}

static bool line_answers(const struct qga_parser *p, uint32_t first_id, uint32_t last_id)
{
	json_t *root = json_loadb(p->line, p->len, 0, NULL), *value = json_object_get(root, "return");
	json_int_t id = json_integer_value(value);
	bool answers = json_is_integer(value) && id >= (json_int_t)first_id && id <= (json_int_t)last_id;

	json_decref(root);
	return answers;
}

bool qga_parser_feed(struct qga_parser *p, const void *data, size_t len, uint32_t first_id, uint32_t last_id)
{
	const unsigned char *bytes = data;
	bool answered = false;

	for (size_t i = 0; i < len; i++) {
		if (bytes[i] == DELIMITER || bytes[i] == '\n') {
			if (bytes[i] == '\n' && !p->skipping && p->len > 0)
				answered |= line_answers(p, first_id, last_id);
			qga_parser_init(p);
		} else if (p->len == sizeof(p->line)) {
			p->skipping = true;
		} else {
			p->line[p->len++] = (char)bytes[i];
		}
	}
	return answered;
}

size_t qga_question(char *ret, size_t size, uint32_t id)
{
	return (size_t)snprintf(ret, size, "\xff{\"execute\":\"guest-sync-delimited\",\"arguments\":{\"id\":%" PRIu32 "}}\n", id);
}
