/* What QEMU says, in pieces of all sizes: the first byte of the sample chooses them. */
#include <stdlib.h>

#include "hypervisor/qmp_parser.h"

#define MAX_LINE 4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct qmp_parser p;
	struct qmp_message m;
	struct err err;
	size_t step = size ? data[0] % 64 + 1 : 1;
	int rc = 0;

	qmp_parser_init(&p, MAX_LINE);
	for (size_t at = 1; at < size && rc >= 0; at += step) {
		qmp_parser_feed(&p, data + at, size - at < step ? size - at : step);
		while ((rc = qmp_parser_next(&p, &m, &err)) == 1) {
			if (!m.root || (m.kind == QMP_MESSAGE_EVENT && !m.name) || (m.kind == QMP_MESSAGE_ERROR && (!m.name || !m.desc)))
				abort();
			qmp_message_clear(&m);
		}
		if (rc == 0 && p.in.len > MAX_LINE)
			abort();
	}
	qmp_parser_free(&p);
	return 0;
}
