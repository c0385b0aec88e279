#include "proto/pb.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

void pb_set_string(char **field, const char *value)
{
	/* The copy comes first: value may be the old string or lie in it. */
	char *copy = value && *value ? str_dup(value) : (char *)protobuf_c_empty_string;

	if (*field != protobuf_c_empty_string)
		free(*field);
	*field = copy;
}

void pb_set_bytes(ProtobufCBinaryData *field, const void *data, size_t len)
{
	uint8_t *copy = len ? mem_dup(data, len) : NULL;

	free(field->data);
	field->data = copy;
	field->len = len;
}

void pb_array_insert(void *array_field, size_t *n, size_t pos, void *message)
{
	void **array;

	assert(pos <= *n && message);
	/* The field is some T **; it is read and written as bytes because C has no T ** that aliases all. */
	memcpy(&array, array_field, sizeof(array));
	array = mem_realloc(array, (*n + 1) * sizeof(*array));
	memmove(array + pos + 1, array + pos, (*n - pos) * sizeof(*array));
	array[pos] = message;
	++*n;
	memcpy(array_field, &array, sizeof(array));
}

void pb_array_remove(void *array_field, size_t *n, size_t pos)
{
	void **array;

	assert(pos < *n);
	memcpy(&array, array_field, sizeof(array));
	memmove(array + pos, array + pos + 1, (*n - pos - 1) * sizeof(*array));
	--*n;
	if (!*n) {
		/* An empty repeated field has no array: free_unpacked() leaves that of a zero count alone. */
		free(array);
		array = NULL;
		memcpy(array_field, &array, sizeof(array));
	}
}

void pb_string_append(char ***array, size_t *n, const char *value)
{
	*array = mem_realloc(*array, (*n + 1) * sizeof(**array));
	(*array)[(*n)++] = str_dup(value ? value : "");
}

void pb_u32_append(uint32_t **array, size_t *n, uint32_t value)
{
	*array = mem_realloc(*array, (*n + 1) * sizeof(**array));
	(*array)[(*n)++] = value;
}

void pb_pack(const void *message, struct buf *out)
{
	size_t size = protobuf_c_message_get_packed_size(message);

	out->len += protobuf_c_message_pack(message, buf_reserve(out, size));
}

void *pb_clone(const void *message)
{
	const ProtobufCMessage *m = message;
	struct buf packed = {0};
	void *copy;

	pb_pack(m, &packed);
	copy = protobuf_c_message_unpack(m->descriptor, NULL, packed.len, packed.data);
	buf_free(&packed);
	/* What was just packed can always be read again: only memory can fail. */
	if (!copy)
		abort();
	return copy;
}

bool pb_equal(const void *a, const void *b)
{
	const ProtobufCMessage *x = a, *y = b;
	struct buf px = {0}, py = {0};
	bool equal;

	if (!x || !y)
		return x == y;
	if (x->descriptor != y->descriptor)
		return false;
	/* Packing goes by field number and leaves defaults out: equal content, equal bytes. */
	pb_pack(x, &px);
	pb_pack(y, &py);
	equal = px.len == py.len && (!px.len || memcmp(px.data, py.data, px.len) == 0);
	buf_free(&px);
	buf_free(&py);
	return equal;
}
