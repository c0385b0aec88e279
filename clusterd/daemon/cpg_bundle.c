#include "clusterd/daemon/cpg_bundle.h"

#include <string.h>

#define LENGTH_BYTES 4

void cpg_bundle_add(struct buf *bundle, const void *message, size_t len)
{
	uint8_t head[LENGTH_BYTES] = {(uint8_t)(len >> 24), (uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len};

	if (!bundle->len)
		buf_append(bundle, "", 1);
	buf_append(bundle, head, sizeof(head));
	buf_append(bundle, message, len);
}

bool cpg_bundle_is(const uint8_t *data, size_t len)
{
	return len && !data[0];
}

bool cpg_bundle_next(const uint8_t *data, size_t len, size_t *at, const uint8_t **ret, size_t *ret_len)
{
	size_t from = *at ? *at : 1, part;

	if (from > len || len - from < LENGTH_BYTES)
		return false;
	part = (size_t)data[from] << 24 | (size_t)data[from + 1] << 16 | (size_t)data[from + 2] << 8 | data[from + 3];
	from += LENGTH_BYTES;
	if (part > len - from)
		return false;
	*ret = data + from;
	*ret_len = part;
	*at = from + part;
	return true;
}
