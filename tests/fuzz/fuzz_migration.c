/* A DATA frame of the migration stream, as another host may send it. What is taken for a chunk lies within the frame. */
#include <stdlib.h>
#include <string.h>

#include "lib/limits.h"
#include "migrate/stream.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct stream_chunk chunk;
	struct err err;
	uint8_t head[STREAM_HEAD_MAX];

	if (stream_chunk_parse(data, size, &chunk, &err) < 0)
		return 0;
	if (chunk.len == 0 || chunk.len > LIMIT_MIGRATION_CHUNK_BYTES || chunk.data < data + 2 || chunk.data + chunk.len != data + size)
		abort();
	uint32_t crc = chunk.crc32c;
	stream_chunk_head(&chunk, head);
	if (chunk.crc32c != crc)
		abort();
	return 0;
}
