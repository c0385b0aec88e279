/* xl.cfg: any text gives a specification or an error. What is read is completed and checked too. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "hypervisor/spec.h"
#include "hypervisor/xlcfg.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t zeros[64];
	struct xlcfg_warnings warnings = {0};
	Gantry__DomainSpec *spec = NULL;
	struct err err = {0};

	int rc = xlcfg_parse("fuzz", (const char *)data, size, NULL, 0, &spec, &warnings, &err);
	if (rc < 0 && (err.text[0] == '\0' || spec != NULL))
		abort();
	if (rc == 0) {
		spec_complete(spec, zeros);
		if (spec_check(spec, &err) < 0 && err.text[0] == '\0')
			abort();
		gantry__domain_spec__free_unpacked(spec, NULL);
	}
	xlcfg_warnings_free(&warnings);
	return 0;
}
