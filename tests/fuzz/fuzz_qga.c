/* What a hostile guest says in its guest agent's place, in pieces of all sizes: the first byte of the sample chooses them. */
#include <stdlib.h>
#include <string.h>

#include "hypervisor/qga_parser.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char sound[] = "\xff{\"return\": 9}\n";
	struct qga_parser p;
	size_t step = size ? data[0] % 64 + 1 : 1;

	qga_parser_init(&p);
	for (size_t at = 1; at < size; at += step) {
		qga_parser_feed(&p, data + at, size - at < step ? size - at : step, 7, 8);
		if (p.len > sizeof(p.line))
			abort();
	}
	/* Whatever came before, a sound answer is understood, and one to another question is none. */
	if (qga_parser_feed(&p, sound, strlen(sound), 7, 8) || !qga_parser_feed(&p, sound, strlen(sound), 7, 9))
		abort();
	return 0;
}
